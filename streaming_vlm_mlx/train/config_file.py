"""A training run's YAML. A key that is no setting costs hours if it is passed over; what is off is told by line."""

import difflib
import typing
from collections.abc import Generator, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from streaming_vlm_mlx.config import ModelConfig, StreamConfig, read_yaml
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.from_dict import FromDict
from streaming_vlm_mlx.train.config import StartConfig, TrainConfig

# Settings that are laid over those of another part, and so have its keys.
_OPEN: dict[type, dict[str, Any]] = {StartConfig: {"sizes": ModelConfig}, TrainConfig: {"stream": StreamConfig}}


def read_train_config(path: Path) -> TrainConfig:
    """Read a run's YAML.

    Raises:
        SvmError: the file is absent or damaged, has a key that is no setting, or a value that does not fit one. The
            text names the line of the setting, or of the part whose settings do not go together.
    """
    values = read_yaml(path, _Loader)
    settings = list(_settings(TrainConfig, values, ""))
    for setting in settings:
        known = _hints(setting.part)
        if setting.key not in known:
            near = difflib.get_close_matches(str(setting.key), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise SvmError(f"{path}:{setting.line}: there is no setting {setting.name!r}{hint}")
    try:
        return TrainConfig.from_dict(values)
    except SvmError as error:
        line = next((f":{setting.line}" for setting in settings if setting.refusal() == str(error)), "")
        raise SvmError(f"{path}{line}: {error}") from error


class _Block(dict[Hashable, Any]):
    """A mapping of a YAML file.

    Attributes:
        lines: where each key stands, counted from 1.
    """

    lines: dict[Hashable, int]


class _Loader(yaml.SafeLoader):
    """Reads mappings as `_Block`."""

    def construct_yaml_map(self, node: yaml.MappingNode) -> Generator[_Block, None, None]:
        """Yield the mapping, then fill it; so can what is in it refer to it."""
        block = _Block()
        yield block
        block.update(self.construct_mapping(node))
        # Here the keys that a "<<" brings in are among the node's own, and before them.
        block.lines = {self.construct_object(key): key.start_mark.line + 1 for key, _ in node.value}


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_yaml_map)


@dataclass(frozen=True)
class _Setting:
    """A key in the file.

    Attributes:
        part: whose field it is, or ought to be.
        key: as in the file.
        value: as in the file.
        name: the key behind those above it, with dots.
        line: counted from 1.
    """

    part: type[FromDict]
    key: Hashable
    value: Any
    name: str
    line: int

    def refusal(self) -> str:
        """Return what is said against this setting where all others have their defaults; "" for nothing."""
        try:
            self.part.from_dict({str(self.key): self.value})
        except SvmError as error:
            return str(error)
        return ""


def _settings(part: type[FromDict], values: object, above: str) -> Iterator[_Setting]:
    """Yield the settings of `part` in `values`, each behind those that are nested in it."""
    if not isinstance(values, _Block):
        return
    hints = _hints(part)
    for key, value in values.items():
        inner = _part_of(hints.get(str(key)))
        for item in (value if isinstance(value, list) else [value]) if inner else ():
            yield from _settings(typing.cast(type[FromDict], inner), item, f"{above}{key}.")
        yield _Setting(part, key, value, f"{above}{key}", values.lines[key])


def _hints(part: type[FromDict]) -> dict[str, Any]:
    """Return the types of `part`'s fields by name."""
    return typing.get_type_hints(part) | _OPEN.get(part, {})


def _part_of(hint: Any) -> type[FromDict] | None:
    """Return the part in `hint`, which may be optional or a tuple of many."""
    for candidate in (hint, *typing.get_args(hint)):
        if isinstance(candidate, type) and issubclass(candidate, FromDict):
            return candidate
    return None
