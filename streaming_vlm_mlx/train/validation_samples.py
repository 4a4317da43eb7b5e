"""Generates commentary for a validation clip during training, with the session that a stream uses."""

from collections.abc import Callable
from dataclasses import replace

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.data.dataset import Windows, cut
from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.families import family_of
from streaming_vlm_mlx.models.loading import Checkpoint, ModelBundle
from streaming_vlm_mlx.stream.events import GenerationResult
from streaming_vlm_mlx.stream.generate import SecondRequest, Session
from streaming_vlm_mlx.text.chat_template import ChatTemplate
from streaming_vlm_mlx.train.metrics import Sampled, SampledSecond
from streaming_vlm_mlx.video.chunk import Chunk
from streaming_vlm_mlx.video.image_processor import patchify
from streaming_vlm_mlx.video.video_file import open_video


class SampleGenerator:
    """Generates commentary for one window of the validation set at a time.

    Each sample is free generation in a new session. The weights, MLX's random state and the order of the batches stay
    as they are, so a run with samples has the same losses as one without.
    """

    def __init__(self, checkpoint: Checkpoint, windows: Windows, seconds: int) -> None:
        """Generate for the first `seconds` seconds of a window of `windows`, with the model of `checkpoint`."""
        self._stream, self._windows, self._seconds = checkpoint.stream, windows, seconds
        stream, has_stamps = checkpoint.stream, family_of(checkpoint.model.config).HAS_STAMPS
        template = ChatTemplate.of(checkpoint.tokenizer, stream.style, stream.system, has_stamps)
        # Nobody reads the timings of a sample, so its clock stands still.
        self._bundle = ModelBundle(
            checkpoint.model, checkpoint.tokenizer, checkpoint.vocabulary, template, clock=lambda: 0.0
        )

    def generate(self, step: int, number: int, stopped: Callable[[], bool]) -> Sampled | None:
        """Return a sample of window `number`, modulo their count; None without windows, or if `stopped` before its end.

        Args:
            step: the step that was done last.
            number: selects the window.
            stopped: asked before each token.

        Raises:
            SvmError: the record or its clip cannot be read.
        """
        if not len(self._windows):
            return None
        record = cut(self._windows[number % len(self._windows)], 0, self._seconds)
        config = replace(self._stream, previous=record.previous, query=record.query or self._stream.query)
        session, seconds = Session(self._bundle, config), list[SampledSecond]()
        with open_video(record.video, record.fps) as source:
            duration = record.turns[-1].end - record.turns[0].start
            chunks = source.chunks(record.turns[0].start, duration)
            for turn, chunk in zip(record.turns, chunks, strict=False):
                text = _generate(session, config, turn, chunk, stopped)
                if stopped():
                    return None
                seconds.append(SampledSecond(turn.start, turn.end, text, turn.commentary))
        return Sampled(step, _name(record), tuple(seconds))


def _generate(session: Session, config: StreamConfig, turn: Turn, chunk: Chunk, stopped: Callable[[], bool]) -> str:
    """Return the text that `session` generates for the second `chunk`."""
    question = "" if turn.question == config.scratchpad else turn.question
    request = SecondRequest(chunk.index, turn.start, turn.end, patchify(chunk.frames, config.pixels), question)
    for event in session.generate(request, stopped=stopped):
        if isinstance(event, GenerationResult):
            return event.text
    raise SvmError("the session ended without a result.")


def _name(record: StreamingRecord) -> str:
    return record.video
