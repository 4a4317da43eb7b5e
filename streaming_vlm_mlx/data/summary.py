"""What a conversion made, counted as it goes."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

from streaming_vlm_mlx.data.record import StreamingRecord


def is_cut(record: StreamingRecord) -> bool:
    """Whether a second or more of what `record` was made of is not in it, because its clip or a limit ends there."""
    return record.turns[-1].end + 1 <= record.video_end


@dataclass
class Summary:
    """A running count.

    Attributes:
        samples: records written.
        seconds: of video in them.
        silent: seconds in which nothing is said.
        words: of commentary in them.
        questions: that viewers ask in them.
        cut: records that end before their annotation does.
        skipped: samples that could not be used, by reason.
        left_out: samples that a filter left out, by filter.
    """

    samples: int = 0
    seconds: int = 0
    silent: int = 0
    words: int = 0
    questions: int = 0
    cut: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, record: StreamingRecord, words: list[int]) -> None:
        """Count `record`; `words` are those of its seconds."""
        self.samples += 1
        self.seconds += len(words)
        self.silent += words.count(0)
        self.words += sum(words)
        self.questions += sum(bool(turn.question) for turn in record.turns)
        self.cut += is_cut(record)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back."""
        return {**vars(self), "skipped": dict(self.skipped), "left_out": dict(self.left_out)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        counters = {name: Counter(values[name]) for name in ("skipped", "left_out")}
        return cls(**{**values, **counters})

    def lines(self) -> list[str]:
        """Return the count in words, a line each."""
        share = f" ({self.silent / self.seconds:.0%})" if self.seconds else ""
        lines = [
            f"samples         {self.samples:,}",
            f"video           {timedelta(seconds=self.seconds)}",
            f"words           {self.words:,}",
            f"silent seconds  {self.silent:,}{share}",
            f"questions       {self.questions:,}",
            f"cut short       {self.cut:,}",
        ]
        for name, counter in (("skipped", self.skipped), ("left out", self.left_out)):
            lines.append(f"{name:15} {sum(counter.values()):,}")
            lines += [f"  {count:,} × {reason}" for reason, count in counter.most_common()]
        return lines
