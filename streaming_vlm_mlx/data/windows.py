"""Records cut into short overlapped windows, the form that StreamingVLM trains on (24 s, every 12 s)."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from streaming_vlm_mlx.data.record import StreamingRecord
from streaming_vlm_mlx.data.record_file import RecordFile
from streaming_vlm_mlx.errors import SvmError


class Windows:
    """The windows of all records by number; a record is read when one of its windows is asked for."""

    def __init__(self, files: Sequence[RecordFile], seconds: int, stride: int, anew: float = 0.0) -> None:
        """Cut the records of `files` into windows of at most `seconds` seconds that start every `stride` seconds.

        A share `anew` of them, spread evenly, knows nothing of what was said before, like a stream that begins there.

        Raises:
            SvmError: windows that overlap wholly, or not at all in between, were asked for.
        """
        if not 1 <= stride <= seconds:
            raise SvmError(
                f"windows of {seconds} s every {stride} s: the stride must be from 1 to the window's length."
            )
        self._files, self._anew = files, anew
        self._seconds, self._stride = seconds, stride
        turns = np.concatenate([file.turns for file in files])
        counts = 1 + np.maximum(0, -(-(turns - seconds) // stride))
        self._ends = np.cumsum(counts)
        self._file_ends = np.cumsum([len(file) for file in files])
        self._numbers = range(int(self._ends[-1]))

    def __len__(self) -> int:
        return len(self._numbers)

    def share(self, rank: int, ranks: int) -> "Windows":
        """Return every window of number `rank`, `rank` + `ranks`, and so on: shares that together are the whole."""
        part = copy(self)
        part._numbers = self._numbers[rank::ranks]
        return part

    def __getitem__(self, number: int) -> StreamingRecord:
        """Read window `number`, a record in itself.

        Raises:
            SvmError: its file changed under our hands.
        """
        number = self._numbers[number]
        place = int(np.searchsorted(self._ends, number, side="right"))
        file = int(np.searchsorted(self._file_ends, place, side="right"))
        record = self._files[file][place - (int(self._file_ends[file - 1]) if file else 0)]
        window = number - (int(self._ends[place - 1]) if place else 0)
        record = cut(record, window * self._stride, window * self._stride + self._seconds)
        begins_anew = int(number * self._anew) != int((number + 1) * self._anew)
        return replace(record, previous="") if begins_anew else record


def cut(record: StreamingRecord, first: int, behind: int) -> StreamingRecord:
    """Return the seconds from `first` to before `behind` as a record; what was said before is its previous text.

    It reads as a stream does that has let go of the seconds before: each commentary that moved has a space in front.
    """
    turns = record.turns[first:behind]
    if not first:
        return record if len(turns) == len(record.turns) else replace(record, turns=turns, video_end=turns[-1].end)
    said = (turn.commentary for turn in record.turns[:first])
    return replace(
        record,
        turns=turns,
        video_start=turns[0].start,
        video_end=min(turns[-1].end, max(record.video_end, turns[0].end)),
        previous=record.previous + "".join(f" {text}" for text in said if text),
    )
