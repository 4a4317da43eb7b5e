"""Lines of JSON, whatever comes: half lines, garbage, megabytes."""

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tui.player.ipc.protocol import (
    LineBuffer,
    LineTooLongError,
    Request,
    RequestError,
    SendQueue,
    encode,
    parse_request,
    reply,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


def test_a_request_is_a_command_its_arguments_and_a_number() -> None:
    line = b'{"command": ["seek", 12.5, "absolute"], "request_id": 3, "more": 1}'
    assert parse_request(line) == Request("seek", (12.5, "absolute"), 3)
    assert parse_request(b' {"command": ["pause"]}\r') == Request("pause")


@pytest.mark.parametrize(
    ("line", "number", "words"),
    [
        (b"pause", 0, "not JSON"),
        (b"\xff\xfe", 0, "not JSON"),
        (b"[" * 10_000, 0, "nested too deeply"),
        (b'{"command": ["seek", NaN], "request_id": 3}', 0, "NaN"),
        (b"7", 0, "must be an object"),
        (b'{"request_id": 3}', 3, "command is None"),
        (b'{"command": "pause", "request_id": 3}', 3, "must be a list"),
        (b'{"command": [], "request_id": 3}', 3, "must be a list"),
        (b'{"command": [3], "request_id": 3}', 3, "must be a list"),
        (b'{"command": ["pause"], "request_id": true}', 0, "request_id is True"),
        (b'{"command": ["pause"], "request_id": 1e3}', 0, "request_id is 1000.0"),
        (b'{"command": ["pause"], "request_id": 9223372036854775808}', 0, "64 bits"),
    ],
)
def test_what_is_no_request_is_refused_under_its_number(line: bytes, number: int, words: str) -> None:
    with pytest.raises(RequestError, match=words) as refused:
        parse_request(line)
    assert refused.value.request_id == number
    assert "\n" not in str(refused.value)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"command": ["\\ud800"]}')
@example(b"9" * 5000)
def test_any_bytes_are_a_request_or_refused(line: bytes) -> None:
    try:
        answer = reply(parse_request(line).request_id)
    except RequestError as error:
        answer = reply(error.request_id, error=str(error))
    assert set(json.loads(answer)) == {"error", "data", "request_id"}
    assert answer.count(b"\n") == 1


@given(st.dictionaries(st.text(), JSON))
@example({"text": "\ud800\x1b[2J\u202e\u2028"})
def test_a_line_is_read_back_and_holds_no_control_characters(values: dict[str, object]) -> None:
    line = encode(values)
    assert json.loads(line) == values
    assert line.endswith(b"\n")
    assert not any(char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u202e" for char in line[:-1].decode())


def taken(buffer: LineBuffer) -> list[bytes]:
    found = []
    while (line := buffer.take()) is not None:
        found.append(line)
    return found


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"."))), st.lists(st.integers(0, 40)))
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines) + b"half"
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    buffer, found = LineBuffer(), []
    for start, end in itertools.pairwise(places):
        buffer.feed(data[start:end])
        found += taken(buffer)
    assert found == lines
    assert len(buffer) == len(b"half")


@given(st.integers(1, 50), st.integers(0, 100), st.booleans())
def test_a_line_that_is_too_long_is_refused_also_before_its_end(limit: int, length: int, whole: bool) -> None:
    buffer = LineBuffer(limit)
    buffer.feed(b"x" * length + b"\n" * whole)
    if length > limit:
        with pytest.raises(LineTooLongError):
            buffer.take()
    else:
        assert buffer.take() == (b"x" * length if whole else None)


@given(st.integers(1, 100), st.lists(st.none() | st.binary(min_size=1, max_size=60)))
def test_a_queue_is_bounded_and_keeps_the_order(limit: int, steps: list[bytes | None]) -> None:
    queue, kept, largest = SendQueue(limit), list[bytes](), 0
    for line in steps:
        if line is None:
            assert queue.get() == (kept.pop(0) if kept else None)
        elif queue.put(line):
            kept.append(line)
            largest = max(largest, len(line))
        else:
            assert queue.size + len(line) > limit
        assert queue.size == sum(map(len, kept)) <= max(limit, largest)
    queue.replace(b"last")
    assert (queue.get(), queue.get(), queue.size) == (b"last", None, 0)
