"""From what a user calls a checkpoint to the folder that holds it, and the stream settings in it; imports no MLX."""

import re
from pathlib import Path

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.config_io import read_config
from streaming_vlm_mlx.errors import SvmError

STREAM = "stream.yaml"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_FILES = ("*.json", "*.safetensors", "*.yaml", "*.txt")


def resolve_checkpoint(name: str, root: Path = Path("checkpoints")) -> Path:
    """Return the folder of checkpoint `name`: a path, else one below `root`, else a hub id, which is fetched.

    Raises:
        SvmError: there is none; the text lists the places that were looked at.
    """
    places = [_at_home(Path(name)), root / name]
    for place in places:
        if place.is_dir():
            return place
        if place.is_file():
            raise SvmError(f"{place} is a file; a checkpoint is a folder with config.json and model.safetensors.")
    looked = ", ".join(str(p) for p in places)
    if not HUB_ID.fullmatch(name):
        raise SvmError(f"no checkpoint {name!r}: looked for {looked}; it is no hub id ('owner/name') either.")
    return _fetch(name, looked)


def read_stream_config(folder: Path) -> StreamConfig:
    """Return `folder`'s ``stream.yaml``, or the defaults where there is none.

    Raises:
        SvmError: the file is damaged, or a value is of another type than its field.
    """
    path = folder / STREAM
    return read_config(path, StreamConfig) if path.is_file() else StreamConfig()


def _at_home(path: Path) -> Path:
    """Return `path` with its ``~`` resolved, as far as there is such a user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _fetch(repo_id: str, looked: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(HUB_FILES)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SvmError(f"no checkpoint {repo_id!r}: looked for {looked}; the hub has none of that name.") from error
    except OSError as error:
        raise SvmError(
            f"no checkpoint {repo_id!r}: looked for {looked}, and the hub cannot be reached; "
            "fetch it while online, or name a folder."
        ) from error
