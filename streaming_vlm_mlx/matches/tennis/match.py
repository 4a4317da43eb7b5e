"""A simulated tennis match, drawn entirely from one seed."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
from PIL import Image

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.eval.text_metrics import Word
from streaming_vlm_mlx.matches.camera import HEIGHT, WIDTH, Grade, Grain, Pixels, random_grade, vignetted
from streaming_vlm_mlx.matches.match_truth import BoardState, Question, Truth, stream
from streaming_vlm_mlx.matches.tennis.arena import paint_plates
from streaming_vlm_mlx.matches.tennis.commentary import commentary
from streaming_vlm_mlx.matches.tennis.court import SURFACES
from streaming_vlm_mlx.matches.tennis.painter import Extras, Painter, Staging, grained, random_camera, staged
from streaming_vlm_mlx.matches.tennis.players import random_cast
from streaming_vlm_mlx.matches.tennis.questions import descriptions, questions
from streaming_vlm_mlx.matches.tennis.rules import Opening, random_score
from streaming_vlm_mlx.matches.tennis.scoreboard import Bug, board_state, random_bug
from streaming_vlm_mlx.matches.tennis.script import Director, Script, events
from streaming_vlm_mlx.matches.tennis.vision_targets import Values, vision_targets

FPS = 25
LEAST_FPS, MOST_FPS = 2, 60


class Tennis:
    """Tennis as a `matches.writer.Sport`."""

    name = "tennis"

    def __init__(self, fps: int = FPS, opening: Opening = random_score) -> None:
        """Film at `fps` frames a second; `opening` draws the score at the start of each clip.

        Raises:
            SvmError: `fps` is out of range.
        """
        if not LEAST_FPS <= fps <= MOST_FPS:
            raise SvmError(f"--fps is {fps}; a match is filmed at {LEAST_FPS} to {MOST_FPS} frames a second.")
        self._fps = fps
        self._opening = opening

    def match(self, seed: int, seconds: float) -> "TennisMatch":
        """Return `seconds` of match `seed`."""
        return TennisMatch(seed, seconds, self._fps, self._opening)

    def questions(self, truth: Truth, every: float) -> tuple[Question, ...]:
        """Return a viewer's questions, one in `every` seconds; see `tennis.questions`."""
        return questions(truth, every)

    def descriptions(self, truth: Truth) -> tuple[Question, ...]:
        """Return the description of each second; see `tennis.questions`."""
        return descriptions(truth)

    def targets(self, truth: Truth) -> Mapping[str, Values]:
        """Return the vision targets of each frame; see `tennis.vision_targets`."""
        return vision_targets(truth)


class TennisMatch:
    """One match. Its parts are computed when they are first used.

    Attributes:
        seed: determines everything.
        seconds: the clip's length.
        fps: frames a second; the play does not depend on it.
        opening: draws the score at the start of the clip.
    """

    size = (WIDTH, HEIGHT)

    def __init__(self, seed: int, seconds: float, fps: int = FPS, opening: Opening = random_score) -> None:
        self.seed = seed
        self.seconds = seconds
        self.fps = fps
        self.opening = opening
        self.surface = SURFACES[stream(seed, "surface").integers(len(SURFACES))]

    @cached_property
    def script(self) -> Script:
        """The script: everything that happens."""
        rng = stream(self.seed, "play")
        ends = ((-1, 1), (1, -1))[rng.integers(2)]
        cast = random_cast(stream(self.seed, "cast"), self.surface)
        return Director(rng, cast, self.opening(rng), ends, self.seconds).run()

    @cached_property
    def staging(self) -> Staging:
        """The script in front of the camera."""
        rng = stream(self.seed, "camera")
        return staged(self.script, random_camera(rng), self.fps, rng)

    @cached_property
    def bug(self) -> Bug:
        """The score bug."""
        return random_bug(stream(self.seed, "bug"), self.script.cast)

    @cached_property
    def states(self) -> tuple[BoardState, ...]:
        """The states of the score bug, in order of time."""
        cast = self.script.cast
        later = [board_state(round(p.shown, 3), cast, p.after) for p in self.script.points if p.shown < self.seconds]
        return (board_state(0.0, cast, self.script.opening), *later)

    @cached_property
    def grade(self) -> Grade:
        """Light, grain and compression."""
        return random_grade(stream(self.seed, "grade"))

    @property
    def crf(self) -> int:
        """H.264's constant rate factor."""
        return self.grade.crf

    def truth(self, video: str) -> Truth:
        """Return the truth of the clip whose file name is `video`."""
        return Truth(
            sport=Tennis.name,
            seed=self.seed,
            video=video,
            size=self.size,
            fps=self.fps,
            seconds=self.seconds,
            kits=self.script.cast.names,
            words=self.words(0),
            events=events(self.script),
            layout=self.bug.layout,
            states=self.states,
            frames=self.staging.frames(),
        )

    def words(self, paraphrase: int) -> tuple[Word, ...]:
        """Return the commentary number `paraphrase`: the same play in other words."""
        return commentary(self.script, stream(self.seed, f"words {paraphrase}" if paraphrase else "words"))

    def frames(self) -> Iterator[Pixels]:
        """Yield the frames in order: uint8 [height, width, 3], RGB."""
        plates = paint_plates(self.staging.camera, self.surface, stream(self.seed, "arena"))
        plates = [Image.fromarray(vignetted(np.asarray(p), self.grade.vignette)) for p in plates]
        extras = Extras(self.script, self.staging.camera, plates, stream(self.seed, "extras"))
        painter = Painter(self.staging, extras, self.bug, self.states, self.grade)
        count = len(self.staging.times)
        grain = Grain(stream(self.seed, "grain"), self.grade, self.size, count)
        for i in range(count):
            yield grained(painter.draw(i), grain, i)
