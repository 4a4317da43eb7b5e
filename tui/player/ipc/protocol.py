"""The protocol of the socket: lines of JSON in both directions, as mpv speaks it. Nothing here knows a socket."""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from streaming_vlm_mlx.config_io import shown
from streaming_vlm_mlx.input_files import parse_json
from streaming_vlm_mlx.plain_text import safe_json

# Bytes of a request at most, without its line feed; a question has 500 characters.
MAX_LINE = 16 << 10
# Bytes that may wait for a client that does not read; minutes of `second` events.
MAX_WAITING = 256 << 10
SUCCESS = "success"

_LARGEST_ID = 1 << 63


class RequestError(Exception):
    """A line that is no request; `request_id` is that of the line, 0 where it has none."""

    def __init__(self, text: str, request_id: int = 0) -> None:
        super().__init__(text)
        self.request_id = request_id


class LineTooLongError(Exception):
    """A line is longer than a request can be."""


@dataclass(frozen=True)
class Request:
    """A command and its arguments, and the number that its reply carries."""

    name: str
    arguments: tuple[object, ...] = ()
    request_id: int = 0


def parse_request(line: bytes) -> Request:
    """Return the request in `line`, such as ``{"command": ["seek", 12.5], "request_id": 3}``.

    Raises:
        RequestError: it is not JSON, or not a request.
    """
    try:
        values = parse_json(line.decode("utf-8"))
    except ValueError as error:
        raise RequestError(f"the line is not JSON ({error}); send one object on each line.") from None
    if not isinstance(values, dict):
        raise RequestError(f'the line is {shown(values)}; it must be an object such as {{"command": ["pause"]}}.')
    number = values.get("request_id", 0)
    if type(number) is not int or not -_LARGEST_ID <= number < _LARGEST_ID:
        raise RequestError(f"request_id is {shown(number)}; it must be a whole number of 64 bits.")
    words = values.get("command")
    if not isinstance(words, list) or not words or not isinstance(words[0], str):
        text = f'command is {shown(words)}; it must be a list that begins with a name, such as ["pause"].'
        raise RequestError(text, number)
    return Request(words[0], tuple(words[1:]), number)


def encode(values: Mapping[str, object]) -> bytes:
    """Return `values` as a line of JSON, without characters that a terminal acts on."""
    return safe_json(json.dumps(values, ensure_ascii=False)).encode("utf-8") + b"\n"


def reply(request_id: int, data: object = None, error: str = SUCCESS) -> bytes:
    """Return the line that answers the request `request_id`."""
    return encode({"error": error, "data": data, "request_id": request_id})


class LineBuffer:
    """Cuts what a client sends into lines."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        """Take lines of at most `limit` bytes."""
        self._limit, self._bytes = limit, bytearray()
        # The bytes at the front that have no line feed.
        self._searched = 0

    def __len__(self) -> int:
        return len(self._bytes)

    def feed(self, data: bytes) -> None:
        """Append what came."""
        self._bytes += data

    def take(self) -> bytes | None:
        """Return the next line without its line feed; None until it is whole.

        Raises:
            LineTooLongError: it is longer than a line can be.
        """
        end = self._bytes.find(b"\n", self._searched)
        if (len(self._bytes) if end < 0 else end) > self._limit:
            raise LineTooLongError
        if end < 0:
            self._searched = len(self._bytes)
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        self._searched = 0
        return line


class SendQueue:
    """Lines that wait for a client to read, up to a number of bytes."""

    def __init__(self, limit: int = MAX_WAITING) -> None:
        """Hold at most `limit` bytes, or one line that is longer."""
        self._limit, self._lines = limit, deque[bytes]()
        self.size = 0

    def put(self, line: bytes) -> bool:
        """Append `line`; return False, and leave it out, when too much waits already."""
        if self._lines and self.size + len(line) > self._limit:
            return False
        self._lines.append(line)
        self.size += len(line)
        return True

    def get(self) -> bytes | None:
        """Remove and return the first line; None where there is none."""
        if not self._lines:
            return None
        line = self._lines.popleft()
        self.size -= len(line)
        return line

    def replace(self, line: bytes) -> None:
        """Drop all lines for this one."""
        self._lines.clear()
        self._lines.append(line)
        self.size = len(line)
