"""How the viewer sees the clip."""

from collections.abc import Callable
from functools import partial

from streaming_vlm_mlx.sessions.session_log import SessionLog
from tui.player.clip import Frame, scale
from tui.player.controller import ChunkArrived
from tui.player.frame_loader import FrameLoader, Grabber, RateLimiter
from tui.player.graphics.drawing import Drawing
from tui.player.screens.parts import PlayerPart
from tui.player.spec import PlayerSpec
from tui.player.widgets.picture import Picture

# Bytes a second that a terminal gets for pictures at most: a slow one would delay keys.
MOST_BYTES = 3_000_000


class Viewing(PlayerPart):
    """The picture, beside the commentary or alone with subtitles.

    Attributes:
        frame_loader: loads the picture; None where there is none.
    """

    frame_loader: FrameLoader[Drawing] | None = None

    def __init__(self, spec: PlayerSpec, session: SessionLog, clock: Callable[[], float]) -> None:
        super().__init__(spec, session)
        self._clock = clock
        self._picture = Picture(spec.display, id="picture")
        self._picture_wanted = spec.with_picture
        self._picture_limiter = RateLimiter(clock)

    @property
    def is_alone(self) -> bool:
        """Whether the picture is shown alone."""
        return self.has_class("-alone")

    def open_pictures(self) -> None:
        """Begin to load pictures; to be called when the screen is mounted."""
        opener: Callable[[], Grabber[Frame]] | None = self.spec.open_grabber
        if opener is None and self.spec.seconds.duration is None:
            opener = partial(FeedGrabber, self)
        if opener:
            open_grabber = opener
            # The loader draws on the picture directly: Textual takes 27 to 50 ms for one of 80×24 cells as it is.
            self.frame_loader = FrameLoader(
                lambda: DrawingGrabber(open_grabber(), self._picture.draw), self._picture.show, self._without_picture
            )
            # Runs while the screen is laid out.
            self.frame_loader.prepare(self.spec.start)
        self._update_picture()

    def action_picture(self) -> None:
        """Show the picture, or hide it."""
        self._picture_wanted = not self._picture_wanted
        self._update_picture()

    def action_picture_alone(self) -> None:
        """Show the picture alone, with the commentary as subtitles; then everything again."""
        alone = not self.is_alone
        if alone and self.frame_loader is None:
            self.note("there is no picture to show.")
            return
        self._picture_wanted = True
        self._update_picture()
        self.set_class(alone, "-alone")
        self.presenter.show_subtitles(alone)

    def on_picture_resized(self) -> None:
        """Request a picture of the new size; the first one is requested before the rest is laid out."""
        self.request_frame(self.controller.playhead.position)

    def request_frame(self, position: float) -> None:
        """Request the picture at `position`, if it is shown."""
        size = self._picture.pixels_for(self.spec.size)
        if self.frame_loader and all(size) and self._picture.display:
            self.frame_loader.request(position, size)

    def request_frame_at_rate(self, position: float, rate: float) -> None:
        """Request the picture at `position`, at most `rate` times a second, and less often where pictures are large.

        A feed has a new one each second only.
        """
        size = self._picture.bytes_a_picture
        if self.spec.open_grabber and self._picture_limiter.allows(min(rate, MOST_BYTES / size) if size else rate):
            self.request_frame(position)

    def show_feed(self, event: ChunkArrived) -> None:
        """Show the newest picture of a feed, which only the model's reader may read."""
        self.feed_chunk = event.chunk
        self.request_frame(event.chunk.start)

    def _without_picture(self, reason: str) -> None:
        self.note(f"no picture: {reason}")

    def _update_picture(self) -> None:
        shown = self._picture_wanted and self.frame_loader is not None
        self.set_class(not shown, "-no-picture")
        if shown:
            self._picture_limiter = RateLimiter(self._clock)
        elif self.is_alone:
            self.set_class(False, "-alone")
            self.presenter.show_subtitles(False)


class DrawingGrabber:
    """Grabs frames as they are to be drawn; for use by one thread."""

    def __init__(self, grabber: Grabber[Frame], draw: Callable[[Frame], Drawing | None]) -> None:
        self._grabber, self._draw = grabber, draw

    def at(self, time: float, size: tuple[int, int]) -> Drawing | None:
        """Return the frame at `time` seconds, of `size` (width, height) in pixels, or None.

        Raises:
            SvmError: the file has gone.
        """
        frame = self._grabber.at(time, size)
        return self._draw(frame) if frame else None

    def find(self, time: float) -> object:
        """Find the frame at `time` seconds.

        Raises:
            SvmError: the file has gone.
        """
        return self._grabber.find(time)

    def close(self) -> None:
        """Close the file."""
        self._grabber.close()


class FeedGrabber:
    """Grabs the newest frame of a feed."""

    def __init__(self, owner: Viewing) -> None:
        self._owner = owner

    def at(self, _: float, size: tuple[int, int]) -> Frame | None:
        """Return the newest frame, scaled to `size` (width, height); None before the first."""
        chunk = self._owner.feed_chunk
        return Frame(chunk.start, scale(chunk.frames[-1], size)) if chunk else None

    def find(self, _: float) -> None:
        """Do nothing: there is one frame."""

    def close(self) -> None:
        """Do nothing: the model's reader has the feed."""
