"""A file of records, read one line at a time: what is kept of a record is sixteen bytes."""

import zipfile
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.atomic import replacing
from streaming_vlm_mlx.data.fields import BadSampleError
from streaming_vlm_mlx.data.lines import Offsets, line_starts, read_lines
from streaming_vlm_mlx.data.record import NewerRecordError, StreamingRecord
from streaming_vlm_mlx.errors import SvmError


@dataclass(frozen=True)
class RecordFile:
    """Records by number. The file was read through once, so that a bad line shows before a run, not hours into it.

    Attributes:
        path: the JSONL file.
        offsets: int64 [records], the byte where each good record starts.
        turns: int64 [records], how many seconds each has.
        skipped: for each line that was passed over, ``file:line: what is wrong``; the first hundred.
        skipped_count: how many there were.
    """

    path: Path
    offsets: Offsets
    turns: npt.NDArray[np.int64]
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open `path` with the index beside it, or read it through and leave an index for the next time.

        Raises:
            SvmError: the file is absent, holds no record, or one that a later version wrote.
        """
        index = path.with_name(path.name + ".index.npz")
        records = cls._load(path, index)
        if records is None:
            records = cls._scan(path)
            records._save(index)
        if not len(records):
            first = f" ({records.skipped[0]})" if records.skipped else ""
            raise SvmError(f"{path} holds no record that can be used{first}. Make one with 'svm-tui convert'.")
        return records

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, number: int) -> StreamingRecord:
        """Read record `number`, from 0 up; its video's path is joined to the file's folder.

        Raises:
            IndexError: there are not so many.
            SvmError: the file changed under our hands.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        (line,) = read_lines(self.path, self.offsets[number : number + 1])
        try:
            record = StreamingRecord.from_line(line)
        except SvmError as error:
            raise SvmError(f"{self.path} changed while it was in use: {error}. Start again.") from error
        return replace(record, video=str(self.path.parent / record.video))

    @classmethod
    def _scan(cls, path: Path) -> Self:
        starts, numbers = line_starts(path)
        offsets, turns = array("q"), array("q")
        skipped: list[str] = []
        count = 0
        for offset, number, line in zip(starts, numbers, read_lines(path, starts), strict=True):
            try:
                turns.append(len(StreamingRecord.from_line(line).turns))
                offsets.append(offset)
            except NewerRecordError as error:
                raise SvmError(f"{path}:{number}: {error}") from error
            except BadSampleError as error:
                count += 1
                if len(skipped) < 100:
                    skipped.append(f"{path}:{number}: {error}")
        return cls(path, np.array(offsets, np.int64), np.array(turns, np.int64), tuple(skipped), count)

    @classmethod
    def _load(cls, path: Path, index: Path) -> Self | None:
        """Return what `index` says, or None when it is absent, broken or of another state of the file."""
        try:
            with np.load(index, allow_pickle=False) as saved:
                if saved["stamp"].tolist() != _stamp(path):
                    return None
                count = int(saved["skipped_count"])
                return cls(path, saved["offsets"], saved["turns"], tuple(saved["skipped"].tolist()), count)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def _save(self, index: Path) -> None:
        try:
            with replacing(index) as part, part.open("wb") as file:
                np.savez(
                    file,
                    stamp=np.array(_stamp(self.path)),
                    offsets=self.offsets,
                    turns=self.turns,
                    skipped=np.array(self.skipped, np.str_),
                    skipped_count=np.array(self.skipped_count),
                )
        except SvmError:
            return  # a folder that can not be written costs time at the next start, no more


def _stamp(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
