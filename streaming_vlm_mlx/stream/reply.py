"""The reply of a model to one second: tokens, shown text, limits and the guard against repetition."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from streaming_vlm_mlx.config import SamplingConfig
from streaming_vlm_mlx.text.detokenizer import CommentaryCleaner, Scratchpad, StreamDecoder
from streaming_vlm_mlx.text.tokenizer import Tokenizer

# Chinese and Japanese have no spaces between words: each of their characters counts as one.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")
_LETTERS = re.compile(r"\w+")
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]+")
# The full stop of a short word, as in "Mr. Smith" and "No. 10", does not end a sentence.
_SENTENCE_END = re.compile(r"(?:(?<=\w\w\w)\.+|[!?])[.!?]*[\"'”’)\]]*(?=\s)|[。！？]+|(?<=\S)(?=[^\S\n]*\n)")


@dataclass(frozen=True)
class _Said:
    """What was said in a second: its start, the rows of its tokens, and its words."""

    start: float
    rows: tuple[int, ...]
    words: str


class RepetitionGuard:
    """Remembers the commentary of the last `repetition_window` seconds and rules out its repetition.

    Two rules work together. A token that completes an n-gram of that commentary, or of the reply under way, is banned,
    as by Hugging Face's `no_repeat_ngram_size`. A reply may begin like an earlier one, because names and subjects
    return: the token that continues such a copy is allowed, and a reply that is a copy to its end counts as silence.
    """

    def __init__(self, config: SamplingConfig, endings: Sequence[int] = ()) -> None:
        """Begin with nothing said; the rows `endings`, which end a reply, are never banned."""
        self._endings = frozenset(endings)
        self._size, self._window = config.no_repeat_ngram_size, config.repetition_window
        self._said: list[_Said] = []

    def configure(self, config: SamplingConfig) -> None:
        """Change the settings; what was said is kept."""
        self._size, self._window = config.no_repeat_ngram_size, config.repetition_window

    def add(self, start: float, rows: Sequence[int], text: str) -> None:
        """Remember what was said in the second that begins at `start`; silence is not remembered."""
        if text:
            self._said.append(_Said(start, tuple(map(int, rows)), _words(text)))

    def forget_before(self, now: float) -> None:
        """Forget what was said more than the window before `now`."""
        self._said = [said for said in self._said if now - said.start <= self._window]

    def clear(self) -> None:
        """Forget everything."""
        self._said.clear()

    def banned(self, rows: Sequence[int]) -> list[int]:
        """Return each row that would complete a repeated n-gram after the reply `rows`."""
        size = self._size
        reply = tuple(rows)
        if not size or len(reply) < size - 1:
            return []
        tail = reply[-(size - 1) :]
        banned = {
            row
            for text in (*(said.rows for said in self._said), reply)
            for at, row in enumerate(text[size - 1 :])
            if text[at : at + size - 1] == tail
        }
        banned -= self._endings | {said.rows[len(reply)] for said in self._said if _begins(said.rows, reply)}
        return sorted(banned)

    def may_repeat(self, text: str) -> bool:
        """Return whether `text`, the beginning of a reply, is so far a copy of an earlier one's beginning."""
        return any(said.words.startswith(_words(text)) for said in self._said)

    def repeats(self, text: str) -> bool:
        """Return whether the whole reply `text` has the words of an earlier one, up to case and punctuation."""
        return any(said.words == _words(text) for said in self._said)


def _words(text: str) -> str:
    return " ".join(_LETTERS.findall(text.casefold()))


def _begins(longer: tuple[int, ...], shorter: tuple[int, ...]) -> bool:
    return len(longer) > len(shorter) and longer[: len(shorter)] == shorter


class Reply:
    """The reply of the model to one second, without its markup and closing `` ...``.

    The text of a reply is shown as it grows. With a limit of words or sentences the last word is held back until it is
    complete, and with a repetition guard a text that may still turn out to be a repetition: nothing that was shown is
    taken back.

    Attributes:
        tokens: those of the commentary as they were generated, a stop token included.
        text: the commentary so far.
        scratch: the line of notes before it, or None.
        is_full: whether a limit of words or sentences is reached.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_ids: Collection[int],
        with_notes: bool = False,
        limits: SamplingConfig | None = None,
        guard: RepetitionGuard | None = None,
        needs_word: bool = False,
    ) -> None:
        """Begin a reply.

        Args:
            tokenizer: turns ids into text.
            stop_ids: ids that end a reply.
            with_notes: whether it begins with a scratchpad line.
            limits: the settings that limit its words and sentences; None for no limit.
            guard: rules out repetitions; None to allow them.
            needs_word: whether a reply without a letter or digit, such as "...", counts as silence.
        """
        self.tokens: list[int] = []
        self.text, self.is_full = "", False
        self.scratch = Scratchpad(tokenizer) if with_notes else None
        self._stop_ids, self._guard, self._needs_word = stop_ids, guard, needs_word
        self._decoder, self._cleaner = StreamDecoder(tokenizer), CommentaryCleaner()
        self._limit = _Limit(limits) if limits and (limits.max_words or limits.max_sentences) else None
        self._held, self._decided, self._is_repeated = "", guard is None and not needs_word, False

    @property
    def notes(self) -> str:
        """The text of the scratchpad."""
        return self.scratch.text.strip() if self.scratch else ""

    @property
    def token_count(self) -> int:
        """The number of generated tokens, notes included."""
        return len(self.tokens) + (len(self.scratch.ids) if self.scratch else 0)

    @property
    def is_repeated(self) -> bool:
        """Whether the reply was dropped as a repetition."""
        return self._is_repeated

    @property
    def said(self) -> list[int]:
        """The tokens whose text belongs to the reply: without a stop token, and without what a limit cut off."""
        said = self.tokens[:-1] if self._ended else self.tokens
        return said if self._limit is None else said[: self._limit.kept]

    @property
    def _ended(self) -> bool:
        return bool(self.tokens) and self.tokens[-1] in self._stop_ids

    def push(self, token: int) -> str:
        """Add a token; return the text that can be shown now."""
        self.tokens.append(token)
        piece = self._decoder.push(token)
        if self._limit:
            piece = self._limit.push(piece)
            self.is_full = self._limit.is_full
        return self._release(self._cleaner.push(piece))

    def flush(self) -> str:
        """Return the text that was held back; the reply is over."""
        rest = self._decoder.flush()
        if self._limit:
            rest = self._limit.flush(rest, self._ended)
        shown = self._release(self._cleaner.push(rest) + self._cleaner.flush())
        if self._decided:
            return shown
        held, self._held, self._decided = self._held, "", True
        self._is_repeated = bool(self._guard and held and self._guard.repeats(held))
        silent = self._is_repeated or (self._needs_word and not _has_word(held))
        return shown + self._show("" if silent else held)

    def _release(self, piece: str) -> str:
        """Return `piece` behind what was held back, once the reply can be neither a repetition nor silence."""
        if self._decided:
            return self._show(piece)
        self._held += piece
        silent = self._needs_word and not _has_word(self._held)
        if silent or (self._guard and self._guard.may_repeat(self._held)):
            return ""
        piece, self._held, self._decided = self._held, "", True
        return self._show(piece)

    def _show(self, piece: str) -> str:
        self.text += piece
        return piece


class _Limit:
    """Ends a reply with a sentence or a word.

    Attributes:
        is_full: whether the reply is over.
        kept: how many of the pushed tokens belong to the reply; all until it is over.
    """

    def __init__(self, config: SamplingConfig) -> None:
        self._words, self._sentences = config.max_words, config.max_sentences
        # The text so far, how much of it was returned, and its length without white space at its end after each token.
        self._text, self._shown = "", 0
        self._lengths: list[int] = []
        self.is_full, self.kept = False, 0

    def push(self, piece: str) -> str:
        """Add the text of the next token; return the text up to the last complete word, or up to the limit."""
        self._add(piece)
        ends = [end for end in (self._sentence_limit(), self._word_limit()) if end is not None]
        if not ends:
            return self._take(self._complete())
        self.is_full = True
        return self._cut(min(ends))

    def flush(self, rest: str, ended: bool) -> str:
        """Return the held-back text of a reply that is over; without an end of its own it loses an incomplete word."""
        if self.is_full:
            return ""
        self._text += rest
        complete = self._complete()
        if ended or not self._text[:complete].strip():
            return self._take(len(self._text))
        return self._cut(complete)

    def _add(self, piece: str) -> None:
        self._text += piece
        self._lengths.append(len(self._text.rstrip()))
        self.kept = len(self._lengths)

    def _take(self, end: int) -> str:
        taken, self._shown = self._text[self._shown : end], max(self._shown, end)
        return taken

    def _cut(self, end: int) -> str:
        """End the reply with the last token that ends at `end` or before it; return the rest of its text."""
        spoken = [length for length in self._lengths if length]
        length = max([n for n in spoken if n <= end] or spoken[:1])
        self.kept = self._lengths.index(length) + 1
        return self._take(length)

    def _complete(self) -> int:
        """Return the end of the last word that is followed by something else."""
        end = 0
        for word in _WORD.finditer(self._text):
            if word.end() < len(self._text) or _IDEOGRAPH.match(word[0]):
                end = word.end()
        return end

    def _sentence_limit(self) -> int | None:
        if not self._sentences:
            return None
        ends = [m.end() for m in _SENTENCE_END.finditer(self._text) if _has_word(self._text[: m.end()])]
        return ends[self._sentences - 1] if len(ends) >= self._sentences else None

    def _word_limit(self) -> int | None:
        if not self._words:
            return None
        words = [m.end() for m in _WORD.finditer(self._text) if _has_word(m[0])]
        if len(words) < self._words:
            return None
        end = words[self._words - 1]
        return end if end < len(self._text) else None


def _has_word(text: str) -> bool:
    return any(map(str.isalnum, text))
