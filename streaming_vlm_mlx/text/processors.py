"""transformers' own tokenizer and processor, for trainers and for comparison; slow to import."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.text.tokenizer import SHIPPED


def transformers_tokenizer(source: str | Path | None = None) -> Any:
    """Return transformers' ``AutoTokenizer`` of `source`, a folder or hub id; Qwen's own for None.

    Raises:
        SvmError: `source` holds no tokenizer.
    """
    from transformers import AutoTokenizer

    return _from_pretrained(AutoTokenizer, source, "tokenizer.json")


def processor(source: str | Path | None = None) -> Any:
    """Return transformers' ``AutoProcessor`` of `source`, a folder or hub id; Qwen's own for None.

    Raises:
        SvmError: torch or torchvision is absent, or `source` holds no processor.
    """
    absent = [name for name in ("torch", "torchvision") if find_spec(name) is None]
    if absent:
        raise SvmError(f"transformers' processor needs {' and '.join(absent)}; pip install 'svm-tui[parity]'.")
    from transformers import AutoProcessor

    return _from_pretrained(AutoProcessor, source, "preprocessor_config.json")


def _from_pretrained(auto: Any, source: str | Path | None, file: str) -> Any:
    """Return ``auto.from_pretrained(source)``; a folder without `file` leaves it to Qwen's own."""
    if source is None or (Path(source).is_dir() and not (Path(source) / file).is_file()):
        source = SHIPPED
    try:
        return auto.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SvmError(f"{source} gives no {file} ({reason:.160}); name a folder or a hub id that has one.") from error
