"""Commentary as phrases to speak, from the events of the controller."""

from dataclasses import dataclass

from streaming_vlm_mlx.sessions.sentences import ends_sentence
from streaming_vlm_mlx.stream.events import Failed, GenerationResult, SecondStarted, TextPiece
from tui.player.controller import PlayerEvent, Seeked


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words to be spoken at once.

    Attributes:
        second: number of the second that they are said in.
        end: seconds of clip at the end of that second.
        line: number of their line in it; where the viewer asked something, line 0 is the answer.
        text: the words.
    """

    second: int
    end: float
    line: int
    text: str


class PhraseReader:
    """Cuts the text of each second into phrases: sentences, and what is left at the end of the second or of a line."""

    def __init__(self) -> None:
        self._second, self._end = -1, 0.0
        self._line, self._text = 0, ""

    def read(self, event: PlayerEvent) -> list[Phrase]:
        """Return the phrases that are whole with `event`."""
        match event:
            case SecondStarted(index, _, end):
                self._second, self._end = index, end
                self._line, self._text = 0, ""
            case TextPiece(index, text) if index == self._second:
                self._text += text
                return self._whole()
            case GenerationResult(index=index) if index == self._second:
                # The pieces of a second join to its text.
                self._text += "\n"
                return self._whole()
            case Seeked() | Failed():
                self._second = -1
        return []

    def _whole(self) -> list[Phrase]:
        """Take the phrases that are whole from the text."""
        found = []
        *lines, self._text = self._text.split("\n")
        for line in lines:
            found.append(self._phrase(line))
            self._line += 1
        # White space shows that the last word is whole: a point may be followed by a digit.
        words = self._text.split(" ")
        ends = [number for number, word in enumerate(words[:-1]) if word and ends_sentence(word)]
        if ends:
            found.append(self._phrase(" ".join(words[: ends[-1] + 1])))
            self._text = " ".join(words[ends[-1] + 1 :])
        return [phrase for phrase in found if phrase.text]

    def _phrase(self, text: str) -> Phrase:
        return Phrase(self._second, self._end, self._line, text.strip())
