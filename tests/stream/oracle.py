"""The published program's rules over a plain list of ids, found again by their markup at every second.

Written from the rules' words alone; it shares nothing with the engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

IM_START, IM_END, NEWLINE = 151644, 151645, 198
VISION_START, VISION_END = 151652, 151653
SYSTEM, USER, ASSISTANT, PREVIOUS = [8948], [872], [77091], [19702, 1467]


def markup(role: Sequence[int]) -> list[int]:
    """Return the opening of a turn."""
    return [IM_START, *role, NEWLINE]


@dataclass
class Oracle:
    """One sequence, and what is done to it second by second."""

    window: int
    text_round: int
    sink: int | None
    slide: int | None
    previous: Sequence[int] = ()
    system: Sequence[int] = (7, 8)
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with the system turn and the previous text."""
        self.ids = [*markup(SYSTEM), *self.system, IM_END, NEWLINE, *markup(PREVIOUS), *self.previous, IM_END, NEWLINE]

    def second(self, now: int, user: Sequence[int]) -> list[int]:
        """Prune before second `now`, append its `user` turn's inside, and return the sequence."""
        if now >= self.text_round:
            self._move_oldest_commentary()
            if self.window > self.text_round:
                self._drop_oldest_time()
        if now >= self.window and self.window < self.text_round:
            self._drop_oldest_video()
        if now >= max(self.window, self.text_round):
            start, end = self._turns(USER)[0]
            del self.ids[start:end]
        if now > 0:
            self._trim_previous()
        self.ids += [*markup(USER), *user, IM_END, NEWLINE, *markup(ASSISTANT)]
        return self.ids

    def generate(self, commentary: Sequence[int]) -> list[int]:
        """End the second with `commentary` and return the sequence."""
        self.ids += [*commentary, IM_END, NEWLINE]
        return self.ids

    def previous_text(self) -> list[int]:
        """Return the long memory."""
        start, end = self._previous()
        return self.ids[start:end]

    def _turns(self, role: Sequence[int]) -> list[tuple[int, int]]:
        """Return where turns of `role` begin and end, the line break behind the end mark counted."""
        starts = [k for k, token in enumerate(self.ids) if token == IM_START]
        ends = [*starts[1:], len(self.ids)]
        opening = markup(role)
        return [(s, e) for s, e in zip(starts, ends, strict=True) if self.ids[s : s + len(opening)] == opening]

    def _previous(self) -> tuple[int, int]:
        start, end = self._turns(PREVIOUS)[0]
        return start + len(markup(PREVIOUS)), end - 2

    def _move_oldest_commentary(self) -> None:
        """All between the markup and the last two tokens, the last word and the end mark, joins the previous text."""
        start, end = self._turns(ASSISTANT)[0]
        moved = self.ids[start + len(markup(ASSISTANT)) : end - 1][:-2]
        del self.ids[start:end]
        _, at = self._previous()
        self.ids[at:at] = moved

    def _drop_oldest_time(self) -> None:
        """The oldest user turn that still begins with a time loses what stands before its video."""
        for start, _ in self._turns(USER):
            inside = start + len(markup(USER))
            video = self.ids.index(VISION_START, inside)
            if video > inside:
                del self.ids[inside:video]
                return

    def _drop_oldest_video(self) -> None:
        start = self.ids.index(VISION_START)
        del self.ids[start : self.ids.index(VISION_END) + 1]

    def _trim_previous(self) -> None:
        if self.sink is None or self.slide is None:
            return
        start, end = self._previous()
        text = self.ids[start : end + 1]
        if len(text) > self.sink + self.slide:
            self.ids[start : end + 1] = text[: self.sink] + text[len(text) - self.slide :]
