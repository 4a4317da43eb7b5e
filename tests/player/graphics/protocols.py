"""Readers of what terminals get: Kitty's, Sixel's and iTerm2's images, as the protocols say."""

import base64
import io
import re
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
KITTY = re.compile(r"\x1b_G([^;\x1b]*);?([^\x1b]*)\x1b\\")
SIXEL = re.compile(r'\x1bP[\d;]*q"(\d+);(\d+);(\d+);(\d+)([^\x1b]*)\x1b\\')
ITERM2 = re.compile(r"\x1b\]1337;File=([^:]*):([^\a]*)\a")


@dataclass(frozen=True)
class KittyCommand:
    """A command with all of its chunks."""

    keys: dict[str, str]
    data: bytes

    @property
    def pixels(self) -> Pixels:
        assert self.keys["f"] == "24"
        assert self.keys["o"] == "z"
        shape = int(self.keys["v"]), int(self.keys["s"]), 3
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(shape)


def read_kitty(text: str) -> list[KittyCommand]:
    """Return the commands in `text`; all must be quiet, and their chunks of the length that terminals take."""
    commands: list[KittyCommand] = []
    more = False
    for words, payload in KITTY.findall(text):
        keys = dict(word.split("=") for word in words.split(","))
        assert keys["q"] == "2"
        assert len(payload) <= 4096
        if more:
            assert set(keys) == {"q", "m"}
            commands[-1] = KittyCommand(commands[-1].keys, commands[-1].data + payload.encode())
        else:
            commands.append(KittyCommand(keys, payload.encode()))
        more = keys.get("m") == "1"
        # All chunks but the last are multiples of four characters.
        assert not more or len(payload) % 4 == 0
    assert not more
    return [KittyCommand(command.keys, base64.b64decode(command.data)) for command in commands]


def read_sixel(text: str) -> Pixels:
    """Return the pixels of the Sixel image `text`; each must be drawn once."""
    found = SIXEL.fullmatch(text)
    assert found
    width, height = int(found[3]), int(found[4])
    palette: dict[int, tuple[int, ...]] = {}
    pixels = np.full((height, width, 3), -1, np.int64)
    x = top = colour = 0
    for token in re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+[?-~]|[?-~]|[$-]", found[5]):
        if token[0] == "#":
            colour, *levels = map(int, token[1:].split(";"))
            if levels:
                palette[colour] = tuple(levels[1:])
        elif token == "$":
            x = 0
        elif token == "-":
            x, top = 0, top + 6
        else:
            count = int(token[1:-1]) if token[0] == "!" else 1
            for row in (row for row in range(6) if (ord(token[-1]) - 63) >> row & 1):
                assert (pixels[top + row, x : x + count] == -1).all()
                pixels[top + row, x : x + count] = palette[colour]
            x += count
    assert (pixels >= 0).all()
    return np.round(pixels * 255 / 100).astype(np.uint8)


def read_iterm2(text: str) -> tuple[dict[str, str], Pixels]:
    """Return the settings and the pixels of the image `text`."""
    found = ITERM2.fullmatch(text)
    assert found
    data = base64.b64decode(found[2])
    settings = dict(word.split("=") for word in found[1].split(";"))
    assert int(settings["size"]) == len(data)
    return settings, np.asarray(Image.open(io.BytesIO(data)))
