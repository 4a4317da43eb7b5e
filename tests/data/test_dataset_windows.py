from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data.dataset import Windows, cut
from streaming_vlm_mlx.data.records import RecordFile, StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError


def record(seconds: int, start: float = 0.0, name: str = "a.mp4", end: float | None = None) -> StreamingRecord:
    turns = tuple(
        Turn(start + s, start + s + 1, f"Time={start + s:.1f}-{start + s + 1:.1f}s{' ' if s else ''}", f"\n w{s} ...")
        for s in range(seconds)
    )
    return StreamingRecord(name, start, end or start + seconds, turns, "Before.")


def open_files(folder: Path, *sizes: list[int]) -> list[RecordFile]:
    files = []
    for number, seconds in enumerate(sizes):
        path = folder / f"{number}.jsonl"
        path.write_bytes(b"".join(record(s, name=f"{number}/{n}").to_line() for n, s in enumerate(seconds)))
        files.append(RecordFile.open(path))
    return files


def spans(windows: Windows) -> list[tuple[str, float, float]]:
    return [(clip(w), w.video_start, w.video_end) for w in windows]


def clip(window: StreamingRecord) -> str:
    """Return the file and the number of the record that `window` is cut from."""
    return "/".join(Path(window.video).parts[-2:])


def test_windows_overlap_and_reach_the_end(tmp_path: Path) -> None:
    windows = Windows(open_files(tmp_path, [3, 10], [5]), seconds=4, stride=3)
    assert len(windows) == 5 + 1
    assert spans(windows) == [
        ("0/0", 0.0, 3.0),
        ("0/1", 0.0, 4.0),
        ("0/1", 3.0, 7.0),
        ("0/1", 6.0, 10.0),
        ("1/0", 0.0, 4.0),
        ("1/0", 3.0, 5.0),
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 8), st.data())
def test_every_second_is_in_a_window(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seconds: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, seconds))
    windows = Windows(open_files(tmp_path_factory.mktemp("w"), sizes), seconds, stride)
    seen = [(clip(window), turn.start) for window in windows for turn in window.turns]
    assert set(seen) == {(f"0/{n}", float(s)) for n, size in enumerate(sizes) for s in range(size)}
    assert all(1 <= len(window.turns) <= seconds for window in windows)


def test_a_window_reads_as_the_stream_does() -> None:
    window = cut(record(8, start=10.0), 2, 5)
    assert [turn.user_text for turn in window.turns] == ["Time=12.0-13.0s ", "Time=13.0-14.0s ", "Time=14.0-15.0s "]
    assert window.previous == "Before. w0 w1"
    assert (window.video_start, window.video_end) == (12.0, 15.0)
    assert cut(replace(record(8), previous=""), 2, 5).previous == " w0 w1"


def test_a_question_stays_with_its_second() -> None:
    turns = (Turn(0, 1, "Time=0.0-1.0s", "\n ..."), Turn(1, 2, "Time=1.0-2.0s Who?", "He.\n ...", "Who?", "He."))
    window = cut(StreamingRecord("a", 0, 2, turns), 1, 3)
    assert window.turns[0].user_text == "Time=1.0-2.0s Who?"
    assert window.turns[0].assistant_text == "He.\n ..."


def test_a_record_that_fits_stays_as_it_is() -> None:
    whole = record(4, end=3.7)
    assert cut(whole, 0, 4) is whole
    assert cut(whole, 2, 6).video_end == 3.7


@pytest.mark.parametrize(("seconds", "stride"), [(4, 0), (4, 5), (0, 0)])
def test_impossible_windows_are_refused(tmp_path: Path, seconds: int, stride: int) -> None:
    with pytest.raises(SvmError, match="the stride must be from 1 to the window's length"):
        Windows(open_files(tmp_path, [3]), seconds, stride)


@pytest.mark.parametrize(("share", "drop_context_prob"), [(0.0, 0), (0.25, 5), (0.5, 10), (1.0, 20)])
def test_a_fraction_of_the_windows_has_no_previous_text(share: float, drop_context_prob: int, tmp_path: Path) -> None:
    files = open_files(tmp_path, [40, 40])
    windows, whole = Windows(files, 4, 4, share), Windows(files, 4, 4)
    fresh = [number for number in range(20) if not windows[number].previous]
    assert len(fresh) == drop_context_prob
    assert all(replace(windows[n], previous=whole[n].previous) == whole[n] for n in range(20))
    # They are spread evenly: no half of the windows has more of them than its share.
    assert abs(sum(number < 10 for number in fresh) - drop_context_prob / 2) <= 0.5
