"""Finds the folder of a checkpoint by its name, and downloads it from the hub.

Imports no MLX.
"""

import re
from pathlib import Path

from streaming_vlm_mlx.errors import SvmError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_FILES = ("*.json", "*.safetensors", "*.yaml", "*.txt")


def resolve_checkpoint(name: str, root: Path = Path("checkpoints")) -> Path:
    """Return the folder of the checkpoint `name`: a path, else a folder in `root`, else a hub id, which is downloaded.

    Raises:
        SvmError: there is none; the text lists the places that were tried.
    """
    places = [_expand_user(Path(name)), root / name]
    for place in places:
        if place.is_dir():
            return place
        if place.is_file():
            raise SvmError(f"{place} is a file; a checkpoint is a folder with config.json and model.safetensors.")
    looked = ", ".join(str(p) for p in places)
    if not HUB_ID.fullmatch(name):
        raise SvmError(f"no checkpoint {name!r}: looked for {looked}; it is not a hub id ('owner/name') either.")
    return _download(name, looked)


def _expand_user(path: Path) -> Path:
    """Return `path` with its ``~`` expanded; unchanged where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _download(repo_id: str, looked: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(HUB_FILES)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SvmError(f"no checkpoint {repo_id!r}: looked for {looked}; the hub has no such repository.") from error
    except OSError as error:
        raise SvmError(
            f"no checkpoint {repo_id!r}: looked for {looked}, and the hub cannot be reached; "
            "download it while online, or name a folder."
        ) from error
