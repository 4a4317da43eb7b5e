#!/usr/bin/env python
"""Draw the pictures of the documentation: the player at work, and what its cache keeps.

Both come from real runs of the checkpoint and the sample that come with the package. The script writes ``player.png``
and ``cache.png`` to ``docs/pictures``, takes half a minute and needs no terminal.
"""

import argparse
import asyncio
import html
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from streaming_vlm_mlx import backend

backend.prepare()

import matplotlib  # noqa: E402 - backend.prepare() has to come before whatever imports MLX
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from streaming_vlm_mlx.config import StreamConfig  # noqa: E402
from streaming_vlm_mlx.hub_cache import checkpoint_name  # noqa: E402
from streaming_vlm_mlx.shipped import CHECKPOINT, SAMPLE  # noqa: E402
from streaming_vlm_mlx.stream.events import SpanMap, SpanView  # noqa: E402
from streaming_vlm_mlx.stream_settings import read_stream_config  # noqa: E402
from streaming_vlm_mlx.video.video_file import open_video  # noqa: E402
from tui.commands.options import make_engine  # noqa: E402
from tui.commands.play import read_clip_truth  # noqa: E402
from tui.player.app import PlayerApp  # noqa: E402
from tui.player.clip import ClipSeconds, FrameGrabber  # noqa: E402
from tui.player.screens.player import PlayerScreen  # noqa: E402
from tui.player.spec import PlayerSpec  # noqa: E402
from tui.session_paths import new_record  # noqa: E402

OUT = Path(__file__).parents[1] / "docs" / "pictures"
# Cells of the terminal, and pixels of a cell.
TERMINAL, CELL = (150, 40), (8, 16)
# Second of the sample that the player shows.
MOMENT = 27.4
# Rich's SVG draws a cell as wide and as high as this.
SVG_CELL = (12.2, 24.4)
# Parts of a cell that block elements fill: left, top, right, bottom.
BLOCKS = {"▀": (0, 0, 1, 0.5), "▄": (0, 0.5, 1, 1), "█": (0, 0, 1, 1), "▌": (0, 0, 0.5, 1), "▐": (0.5, 0, 1, 1)}
# Seconds of video and of text that the cache of the figure keeps, and seconds that the figure shows.
WINDOW, TEXT_ROUND, ROWS = 3, 6, 12
COLORS = {
    "system": ("system turn and first query", "#6e7781"),
    "previous": ("previous text", "#b39ddb"),
    "user": ("time and query", "#f0c674"),
    "video": ("video", "#56b4e9"),
    "text": ("commentary", "#009e73"),
}


def main() -> None:
    """Draw the pictures that are named, or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, metavar="D", help="folder to write to (default docs/pictures)")
    parser.add_argument("--only", choices=("player", "cache"), help="draw one of the two")
    parser.add_argument("--moment", type=float, default=MOMENT, metavar="S", help=f"second to show (default {MOMENT})")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.only in (None, "player"):
        svg = asyncio.run(take_screen(args.moment))
        rasterize(svg).quantize(128).save(args.out / "player.png", optimize=True)
    if args.only in (None, "cache"):
        draw_cache(asyncio.run(span_maps(ROWS)), args.out / "cache.png")


async def take_screen(moment: float) -> str:
    """Play the sample in the real player until second `moment`, and return the screen as SVG."""
    config = read_stream_config(CHECKPOINT)
    source = open_video(str(SAMPLE), config.fps)
    spec = PlayerSpec(
        clip=SAMPLE.name,
        model=checkpoint_name(CHECKPOINT),
        size=source.size,
        seconds=ClipSeconds(source),
        open_grabber=partial(FrameGrabber, str(SAMPLE)),
        make=lambda note: make_engine(CHECKPOINT, config, note)[0],
        config=config,
        read_truth=partial(read_clip_truth, None, str(SAMPLE), source.duration),
        record=new_record(str(SAMPLE), str(CHECKPOINT), config),
        base_paths=(),
        endings=(),
        pace="every",
    )
    app = PlayerApp(spec)
    async with app.run_test(size=TERMINAL) as pilot:
        screen = app.screen
        assert isinstance(screen, PlayerScreen)
        while screen.controller.playhead.position < moment:
            await asyncio.sleep(0.02)
        await pilot.press("space")
        # The picture of the last position is read and drawn on a thread of its own.
        end = time.monotonic() + 2
        while time.monotonic() < end:
            await pilot.pause(0.1)
        return app.export_screenshot(title="svm-tui play")


@dataclass(frozen=True)
class Look:
    """How a class of Rich's SVG draws text."""

    fill: str
    bold: bool
    underline: bool


def rasterize(svg: str) -> Image.Image:
    """Draw the cells of one of Rich's SVG pictures with Pillow; only what Textual's screens use is understood."""
    width, height = CELL
    image = Image.new("RGB", (TERMINAL[0] * width, TERMINAL[1] * height), _background(svg))
    draw = ImageDraw.Draw(image)
    for left, top, right, bottom, fill in _rectangles(svg):
        draw.rectangle((left * width, top * height, right * width - 1, bottom * height - 1), fill=fill)
    fonts = [_font(f"DejaVuSansMono{kind}.ttf", height - 4) for kind in ("", "-Bold")]
    for column, row, look, text in _texts(svg):
        for at, character in enumerate(text, column):
            x, y = at * width, row * height
            if character in BLOCKS:
                x0, y0, x1, y1 = BLOCKS[character]
                box = (x + x0 * width, y + y0 * height, x + x1 * width - 1, y + y1 * height - 1)
                draw.rectangle(box, fill=look.fill)
            elif not character.isspace():
                draw.text((x, y + 1), character, fill=look.fill, font=fonts[look.bold])
            if look.underline:
                draw.line((x, y + height - 2, x + width - 1, y + height - 2), fill=look.fill)
    return image


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _background(svg: str) -> str:
    """Return the colour of the screen, the rectangle that the SVG draws first."""
    found = re.search(r'<rect fill="(#\w+)"', svg)
    return found.group(1) if found else "#000000"


def _rectangles(svg: str) -> Iterator[tuple[int, int, int, int, str]]:
    """Yield the coloured cells: left, top, right, bottom in cells, and their colour."""
    pattern = r'<rect fill="(#\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" shape-rendering'
    for fill, x, y, width, height in re.findall(pattern, svg):
        left, top = round(float(x) / SVG_CELL[0]), round((float(y) - 1.5) / SVG_CELL[1])
        right = round((float(x) + float(width)) / SVG_CELL[0])
        if left < right:
            yield left, top, right, top + round(float(height) / SVG_CELL[1]), fill


def _texts(svg: str) -> Iterator[tuple[int, int, Look, str]]:
    """Yield the texts: column, row, look and characters."""
    looks = {
        name: Look(
            fill=(re.search(r"fill: (#\w+)", style) or ["", "#ffffff"])[1],
            bold="font-weight: bold" in style,
            underline="underline" in style,
        )
        for name, style in re.findall(r"\.(terminal-\d+-r\d+) \{([^}]*)\}", svg)
    }
    pattern = r'<text class="(terminal-\d+-r\d+)" x="([\d.]+)" y="([\d.]+)" textLength="[\d.]+"[^>]*>([^<]*)</text>'
    for name, x, y, text in re.findall(pattern, svg):
        row = round((float(y) - 20) / SVG_CELL[1])
        yield round(float(x) / SVG_CELL[0]), row, looks[name], html.unescape(text).replace("\xa0", " ")


async def span_maps(seconds: int) -> list[SpanMap]:
    """Return what the cache keeps at the start of each of the sample's first `seconds`, under small windows."""
    config: StreamConfig = read_stream_config(CHECKPOINT).merged(
        {"window": WINDOW, "text_round": TEXT_ROUND, "sink": 16, "slide": 24, "scratchpad": "", "scratch_round": 1}
    )
    engine, _ = make_engine(CHECKPOINT, config, print)
    try:
        with open_video(str(SAMPLE), config.fps) as source:
            events = engine.play(source.chunks(0.0, float(seconds)))
            return [event async for event in events if isinstance(event, SpanMap)]
    finally:
        engine.close(10.0)


def draw_cache(maps: Iterable[SpanMap], path: Path) -> None:
    """Draw a row for each second: the spans that the cache keeps, in order, as long as they have tokens."""
    figure, axes = plt.subplots(figsize=(9, 4.6), dpi=110)
    maps = list(maps)
    for row, kept in enumerate(maps):
        left = 0
        for span in kept.spans:
            axes.barh(row, span.tokens, left=left, height=0.8, color=COLORS[span.kind][1], edgecolor="white", lw=0.6)
            _label(axes, span, left, row)
            left += span.tokens
    axes.set_yticks(range(len(maps)), [f"second {kept.index}" for kept in maps])
    axes.invert_yaxis()
    axes.set_xlabel(f"tokens in the cache, in order (window: {WINDOW}, text_round: {TEXT_ROUND})")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles = [Patch(color=color, label=label) for label, color in COLORS.values()]
    axes.legend(handles=handles, ncols=5, loc="lower center", bbox_to_anchor=(0.45, 1.0), frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _label(axes: plt.Axes, span: SpanView, left: int, row: int) -> None:
    if span.kind == "video":
        axes.text(left + span.tokens / 2, row, str(span.round), ha="center", va="center", fontsize=7, color="#0d1117")


if __name__ == "__main__":
    main()
