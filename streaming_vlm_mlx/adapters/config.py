"""Which layers get an adapter, of what kind and size."""

from dataclasses import dataclass
from typing import Literal

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.from_dict import FromDict

Kind = Literal["lora", "dora"]


@dataclass(frozen=True)
class LoraConfig(FromDict):
    """Adapters of a model's linear layers.

    Attributes:
        kind: ``lora`` adds a product of two thin matrices to a weight; ``dora`` learns the length of each of its rows
            as well.
        rank: how thin the matrices are.
        scale: what their product is multiplied by.
        targets: patterns of the layers' names; by default every linear layer of the decoder.
    """

    kind: Kind = "lora"
    rank: int = 8
    scale: float = 2.0
    targets: tuple[str, ...] = ("model.layers.*_proj",)

    def check(self) -> None:
        """Refuse what adapts nothing.

        Raises:
            SvmError: names the setting.
        """
        if self.rank < 1:
            raise SvmError(f"lora.rank is {self.rank}; it must be 1 or more.")
        if self.scale <= 0:
            raise SvmError(f"lora.scale is {self.scale}; it must be above 0.")
        if not self.targets:
            raise SvmError("lora.targets is empty; name layers, as 'model.layers.*_proj'.")
