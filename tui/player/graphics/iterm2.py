"""iTerm2's inline images."""

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.player.clip import Pixels

QUALITY = 85


def encode(pixels: "Pixels", columns: int, rows: int) -> str:
    """Return `pixels`, uint8 [height, width, 3], as a JPEG that fills `columns` by `rows` cells from the cursor on."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    data = base64.standard_b64encode(file.getvalue()).decode("ascii")
    size = f"size={len(file.getvalue())};width={columns};height={rows};preserveAspectRatio=0"
    return f"\x1b]1337;File=inline=1;{size};doNotMoveCursor=1:{data}\a"
