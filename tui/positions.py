"""Where the viewer left each clip."""

import json
import math
import os
from pathlib import Path

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.input_files import parse_json, read_file
from streaming_vlm_mlx.plain_text import safe_json

# Clips that are remembered, and bytes of the largest file that is read.
MOST_CLIPS, LARGEST = 200, 1 << 20
# Seconds at a clip's beginning and end that are not worth a return.
MARGIN = 10.0


class Positions:
    """Positions in clips, in a file of the user's."""

    def __init__(self, path: Path) -> None:
        """Keep them in `path`, which may not exist; a damaged file counts as empty."""
        self._path = path

    def find(self, clip: str) -> float | None:
        """Return where the file `clip` was left, in seconds; None where nobody left it on the way."""
        return self._read().get(_name(clip))

    def remember(self, clip: str, position: float, duration: float) -> None:
        """Keep `position` in the file `clip`, both in seconds; forget it near the beginning and the end.

        Raises:
            SvmError: the file cannot be written.
        """
        known = self._read()
        kept = known.pop(_name(clip), None)
        if MARGIN <= position <= duration - MARGIN:
            known[_name(clip)] = round(position, 3)
        elif kept is None:
            return
        newest = dict(list(known.items())[-MOST_CLIPS:])
        write_text(self._path, safe_json(json.dumps(newest, ensure_ascii=False, indent=1)) + "\n")

    def _read(self) -> dict[str, float]:
        try:
            values = parse_json(read_file(self._path, LARGEST).decode("utf-8"))
        except (SvmError, ValueError):
            return {}
        if not isinstance(values, dict):
            return {}
        numbers = {name: at for name, at in values.items() if isinstance(at, int | float)}
        return {name: float(at) for name, at in numbers.items() if 0 <= at < math.inf}


def _name(clip: str) -> str:
    return os.path.realpath(clip)
