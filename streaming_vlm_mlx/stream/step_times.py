"""When the steps of one second's work were done, and the durations that follow."""

from dataclasses import dataclass

from streaming_vlm_mlx.stream.events import Timings


@dataclass
class StepTimes:
    """When the steps of a second's work were done, by the session's clock.

    Attributes:
        begun: the start of the second's turn.
        seen: the end of the vision tower's work.
        ahead: seconds of that work that were done before.
        prefilled: the end of prefill; 0 where nothing is generated.
        first_text: the first piece of text; 0 without any.
        done: the end of all work; 0 where nothing is generated.
    """

    begun: float
    seen: float
    ahead: float = 0.0
    prefilled: float = 0.0
    first_text: float = 0.0
    done: float = 0.0

    def timings(self) -> Timings:
        """Return the durations."""
        prefilled, done = self.prefilled or self.seen, self.done or self.seen
        return Timings(
            vision_ms=1e3 * (self.seen - self.begun + self.ahead),
            prefill_ms=1e3 * (prefilled - self.seen),
            decode_ms=1e3 * (done - prefilled),
            first_text_ms=1e3 * ((self.first_text or done) - self.begun),
            total_ms=1e3 * (done - self.begun + self.ahead),
        )
