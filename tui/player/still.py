"""A picture of the clip with its commentary, as an image file beside the session."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.sessions.session_log import free_names

if TYPE_CHECKING:
    from PIL import Image


def save_image(image: "Image.Image", path: Path) -> None:
    """Replace `path` with `image` as PNG, atomically.

    Raises:
        SvmError: it cannot be written.
    """
    with replacing(path) as part, part.open("wb") as file:
        image.save(file, "PNG")


def save_beside(base_paths: Iterable[Path], ending: str, write: Callable[[Path], None]) -> Path:
    """Call `write` with a new path at the first of `base_paths` that can be written, and return the path.

    Args:
        base_paths: places without endings, the best first; at least one.
        ending: of the file.
        write: writes the file, and raises `SvmError` where it cannot.

    Raises:
        SvmError: none can be written; it is that of the first.
    """
    failure: SvmError | None = None
    for base_path in base_paths:
        (path,) = free_names(base_path, [ending])
        try:
            write(path)
        except SvmError as error:
            failure = failure or error
        else:
            return path
    assert failure is not None
    raise failure
