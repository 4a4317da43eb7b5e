#!/usr/bin/env python
"""What a picture costs in each way to draw it: processor time on the loader's thread and the event loop, and bytes."""

import argparse
import io
import statistics
import time

from rich.console import Console

from tui.player.clip import FrameGrabber
from tui.player.graphics.display import MODES, Display, lay_out
from tui.player.graphics.drawing import character_rows, draw, image_rows

BACKGROUND = (13, 17, 23)


def main() -> int:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", help="a clip")
    parser.add_argument("--room", type=int, nargs=2, default=(66, 33), metavar=("C", "R"), help="columns and rows")
    parser.add_argument("--cell", type=int, nargs=2, default=(10, 20), metavar=("W", "H"), help="size of a cell")
    parser.add_argument("--pictures", type=int, default=24, help="pictures, half a second apart (default 24)")
    args = parser.parse_args()
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", legacy_windows=False)
    print(f"{'picture':<10}{'pixels':>10}{'loader ms':>11}{'loop ms':>9}{'kB':>6}")
    for mode in MODES:
        display = Display(mode, tuple(args.cell))
        grabber = FrameGrabber(args.clip)
        layout = lay_out(display, grabber.size, tuple(args.room))
        encoding, drawing, sizes, shown = [], [], [], 0
        for number in range(args.pictures):
            frame = grabber.at(number / 2, (layout.width, layout.height))
            if frame is None:
                break
            begun = time.thread_time()
            picture = draw(frame, layout, display, shown)
            encoded = time.thread_time()
            make = image_rows if display.is_image else character_rows
            text = "".join(row.render(console) for row in make(picture, display, args.room[0], BACKGROUND))
            encoding.append(encoded - begun)
            drawing.append(time.thread_time() - encoded)
            sizes.append(len(text.encode()))
            shown = picture.number
        grabber.close()
        figures = 1e3 * statistics.median(encoding), 1e3 * statistics.median(drawing), statistics.median(sizes) / 1e3
        print("{:<10}{:>10}{:>11.1f}{:>9.1f}{:>6.0f}".format(mode, f"{layout.width}×{layout.height}", *figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
