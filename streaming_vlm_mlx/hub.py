"""Finds the folder of a checkpoint or an adapter by its name, and downloads it from the hub.

Imports no MLX.
"""

from pathlib import Path

from streaming_vlm_mlx.checkpoint_files import ADAPTER_CONFIG, missing_adapter_file
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.hub_cache import parse_hub_name
from streaming_vlm_mlx.hub_client import NotFoundError
from streaming_vlm_mlx.hub_download import ADAPTER, CHECKPOINT, Check, Hub, Report, fetch
from streaming_vlm_mlx.input_files import check_name


def _accept(_: object) -> None:
    """Take anything."""


def resolve_checkpoint(
    name: str,
    root: Path = Path("checkpoints"),
    check: Check = _accept,
    report: Report = _accept,
    hub: Hub | None = None,
) -> Path:
    """Return the folder of the checkpoint `name`: a path, else a folder in `root`, else a name on the hub.

    ``owner/name`` and ``owner/name@revision`` are downloaded once; see `hub_download.fetch`.

    Args:
        name: the checkpoint's name.
        root: the folder with the checkpoints that have a short name.
        check: refuses the settings of a model that cannot be used, before its weights are downloaded.
        report: receives the progress of a download.
        hub: the hub and its cache; None for those that the environment names.

    Raises:
        SvmError: there is none, and the text lists the places that were tried; or it cannot be downloaded.
    """
    check_name(name, "checkpoint", "a folder, a name in checkpoints/ or owner/name of the hub")
    places = [_expand_user(Path(name)), root / name]
    for place in places:
        if place.is_dir():
            return place
        if place.is_file():
            raise SvmError(f"{place} is a file; a checkpoint is a folder with config.json and model.safetensors.")
    looked = f"no checkpoint {name!r}: looked for {', '.join(map(str, places))}"
    on_hub = parse_hub_name(name)
    if on_hub is None:
        raise SvmError(f"{looked}; it is not a hub id ('owner/name' or 'owner/name@revision') either.")
    try:
        return fetch(on_hub, CHECKPOINT, hub or Hub.of_environment(), check, report)
    except NotFoundError as error:
        raise SvmError(f"{looked}; {error}") from error


def resolve_adapter(path: Path, report: Report = _accept, hub: Hub | None = None) -> Path:
    """Return the folder of the adapter `path`: a folder, else a name on the hub, which is downloaded once.

    Raises:
        SvmError: there is none, a file of it is missing, or it cannot be downloaded.
    """
    if path.is_dir():
        if missing := missing_adapter_file(path):
            raise SvmError(f"{path} lacks {missing}; an adapter is a folder of train --lora, PEFT or mlx-vlm.")
        return path
    if path.exists():
        raise SvmError(f"{path} is a file; an adapter is a folder with {ADAPTER_CONFIG}.")
    on_hub = parse_hub_name(str(path))
    if on_hub is None:
        raise SvmError(
            f"no adapter '{path}': there is no such folder, and it is not a hub id ('owner/name' or "
            "'owner/name@revision')."
        )
    try:
        return fetch(on_hub, ADAPTER, hub or Hub.of_environment(), _accept, report)
    except NotFoundError as error:
        raise SvmError(f"no adapter '{path}': there is no such folder; {error}") from error


def _expand_user(path: Path) -> Path:
    """Return `path` with its ``~`` expanded; unchanged where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
