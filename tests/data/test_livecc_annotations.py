import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data import livecc_annotations as annotations
from streaming_vlm_mlx.data.json_fields import BadSampleError
from streaming_vlm_mlx.data.livecc_annotations import Annotation, AnnotationFile
from streaming_vlm_mlx.errors import SvmError
from tests.data.making import conversation, write_annotations

WORDS = [[0.1, 0.5, " one "], [0.5, 1.0, "two"]]


def samples(count: int) -> list[Any]:
    return [conversation(f"{n}.mp4", 0, 5, WORDS, previous="x" * n) for n in range(count)]


def videos(file: AnnotationFile) -> list[str]:
    return [Annotation.from_line(line).video for line in file.lines(np.arange(len(file)))]


def test_a_conversation(tmp_path: Path) -> None:
    line = json.dumps(conversation("a.mp4", 1, 5.5, WORDS, [[1, 2, "Who?", "He."]], "Before."))
    assert Annotation.from_line(line.encode()) == Annotation(
        video="a.mp4",
        start=1.0,
        end=5.5,
        words=((0.1, 0.5, "one"), (0.5, 1.0, "two")),
        questions=((1, 2, "Who?", "He."),),
        query="Commentate",
        previous="Before.",
    )


class TestFindingSamples:
    def test_by_the_index_beside(self, tmp_path: Path) -> None:
        path = write_annotations(tmp_path / "games_with_seeks.jsonl", samples(3), index=True)
        assert videos(AnnotationFile.open(path)) == ["0.mp4", "1.mp4", "2.mp4"]

    def test_only_what_the_index_lists_in_its_order(self, tmp_path: Path) -> None:
        path = write_annotations(tmp_path / "games_with_seeks.jsonl", samples(3), index=True)
        beside = tmp_path / "games_seeks.jsonl"
        beside.write_text(json.dumps(json.loads(beside.read_text())[::-2]))
        file = AnnotationFile.open(path)
        assert videos(file) == ["2.mp4", "0.mp4"]
        assert file.numbers.tolist() == [3, 1]

    def test_lines_are_numbered_as_an_editor_does(self, tmp_path: Path) -> None:
        path = write_annotations(tmp_path / "games_with_seeks.jsonl", samples(2), index=True)
        path.write_bytes(b"\n\n" + path.read_bytes())
        beside = tmp_path / "games_seeks.jsonl"
        beside.write_text(json.dumps([offset + 2 for offset in json.loads(beside.read_text())]))
        assert AnnotationFile.open(path).numbers.tolist() == [3, 4]

    def test_by_the_index_on_the_last_line(self, tmp_path: Path) -> None:
        path = write_annotations(tmp_path / "games.jsonl", samples(3), index=True)
        beside = tmp_path / "games_seeks.jsonl"
        with path.open("a") as file:
            file.write(beside.read_text() + "\n")
        beside.unlink()
        assert videos(AnnotationFile.open(path)) == ["0.mp4", "1.mp4", "2.mp4"]

    def test_every_line_without_an_index(self, tmp_path: Path) -> None:
        path = write_annotations(tmp_path / "games.jsonl", ["", *samples(2), ""])
        file = AnnotationFile.open(path)
        assert videos(file) == ["0.mp4", "1.mp4"]
        assert file.numbers.tolist() == [2, 3]


class TestAnIndexThatDoesNotFit:
    @pytest.mark.parametrize("index", ["[0, 5]", "[0, 100000]", "[99999999999999999999]"])
    def test_beside(self, tmp_path: Path, index: str) -> None:
        path = write_annotations(tmp_path / "games_with_seeks.jsonl", samples(2))
        (tmp_path / "games_seeks.jsonl").write_text(index)
        with pytest.raises(SvmError, match=r"games_seeks.jsonl does not match games_with_seeks.jsonl: entry"):
            AnnotationFile.open(path)

    @pytest.mark.parametrize("index", ["", "{}", "[0, 1.5]", "[-1]", "[0,,1]", "[0,]", '["0"]', "[[0]]"])
    def test_no_list_of_offsets(self, tmp_path: Path, index: str) -> None:
        path = write_annotations(tmp_path / "games_with_seeks.jsonl", samples(2))
        (tmp_path / "games_seeks.jsonl").write_text(index)
        with pytest.raises(SvmError, match=r"games_seeks.jsonl is not a list of byte offsets; remove it"):
            AnnotationFile.open(path)

    def test_on_the_last_line(self, tmp_path: Path) -> None:
        path = write_annotations(tmp_path / "games.jsonl", [*samples(2), "[0, 7]"])
        with pytest.raises(SvmError, match=r"The last line of .* does not match games.jsonl: entry 2 points at byte 7"):
            AnnotationFile.open(path)

    def test_an_index_and_nothing_else(self, tmp_path: Path) -> None:
        path = write_annotations(tmp_path / "games.jsonl", ["[0, 7]"])
        with pytest.raises(SvmError, match="does not match"):
            AnnotationFile.open(path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "games.jsonl"
    path.write_text(content)
    with pytest.raises(SvmError, match="is empty"):
        AnnotationFile.open(path)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(SvmError, match=r"absent.jsonl cannot be read"):
        AnnotationFile.open(tmp_path / "absent.jsonl")


GOOD = conversation("a.mp4", 0, 5, WORDS)


def without(key: str) -> Any:
    changed = json.loads(json.dumps(GOOD))
    del changed[0]["content"][0][key]
    return changed


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        ("[{", "not JSON"),
        ("{}", "not a streamed conversation"),
        ("null", "not a streamed conversation"),
        ([GOOD[0]], "not a streamed conversation"),
        ([GOOD[0], {"role": "assistant", "content": [{"type": "text", "text": "x"}]}], "not a streamed conversation"),
        (without("video"), "not a streamed conversation"),
        (without("video_start"), "missing key: video_start"),
        (without("video_end"), "missing key: video_end"),
        (conversation("a.mp4", 5, 5, WORDS), "reversed times"),
        (conversation("a.mp4", 5, 1, WORDS), "reversed times"),
        (conversation("a.mp4", -1, 5, WORDS), "video_start is -1"),
        (conversation("a.mp4", "0", 5, WORDS), "video_start is '0'"),
        (conversation(None, 0, 5, WORDS), "missing key: video"),  # type: ignore[arg-type]
        (conversation("a.mp4", 0, 5, 7), "text_stream is 7"),
        (conversation("a.mp4", 0, 5, [[0, 1]]), "malformed word: [0, 1]"),
        (conversation("a.mp4", 0, 5, [[0, 1, None]]), "malformed word"),
        (conversation("a.mp4", 0, 5, [[0, float("nan"), "x"]]), "malformed word"),
        (conversation("a.mp4", 0, 5, [[2, 1, "back"]]), "reversed times: the word 'back' runs from 2 to 1"),
        (conversation("a.mp4", 0, 5, WORDS, [[0, 1, "Who?"]]), "malformed question"),
        (conversation("a.mp4", 0, 5, WORDS, previous=5), "previous is 5"),
        (json.dumps(GOOD).replace("one", "\\ud83d"), "broken text"),
    ],
)
def test_what_is_no_sample_is_named(sample: Any, problem: str) -> None:
    line = sample if isinstance(sample, str) else json.dumps(sample)
    with pytest.raises(BadSampleError, match=r"^[^\n]*$") as error:
        Annotation.from_line(line.encode())
    assert problem in str(error.value)


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_line_is_too_odd_to_be_refused(line: bytes | str) -> None:
    with pytest.raises(BadSampleError):
        Annotation.from_line(line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass"))


@given(st.lists(st.integers(0, 2**62)), st.sampled_from([",", ", ", " ,\n "]))
def test_an_index_is_read_as_json_reads_it(offsets: list[int], comma: str) -> None:
    line = "[" + comma.join(map(str, offsets)) + "]\n"
    found = annotations.parse_offsets(line.encode())
    assert found is not None
    assert found.tolist() == json.loads(line)
