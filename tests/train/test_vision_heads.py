"""The sidecar's targets, and the heads that are taught with them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.data.records import StreamingRecord, Turn
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.sizes import seed_weights
from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.train.config import HeadConfig
from streaming_vlm_mlx.train.gradients import Compute
from streaming_vlm_mlx.train.loss import LossWeights, TrainModel
from streaming_vlm_mlx.train.microbatch import make_microbatches
from streaming_vlm_mlx.train.trainer import MicrobatchBuilder
from streaming_vlm_mlx.train.vision_heads import TargetReader, VisionHeads
from streaming_vlm_mlx.train.workers import WorkerPool
from tests.small import small_config, small_model
from tests.train.batching import ROWS, VIDEO, make_batch, make_sample

HEADS = (HeadConfig("event", "picture", 4), HeadConfig("court", "patch", 3), HeadConfig("ball", "place"))
GRID = 1, 4, 8  # 2 × 4 cells
FPS = 2
BOTH = LossWeights(1.0, 0.5)


def record(video: Path, start: float = 0.0, seconds: int = 3) -> StreamingRecord:
    turns = tuple(Turn(start + s, start + s + 1, "", "") for s in range(seconds))
    return StreamingRecord(str(video), start, start + seconds, turns, fps=FPS)


def sidecar(folder: Path, **arrays: Any) -> Path:
    times = np.arange(100) / 25
    known = {
        "times": times,
        "event": (times // 1).astype(np.int32) - 1,
        "court": np.arange(100)[:, None, None] % 3 + np.zeros((100, 2, 2), np.int32),
        "ball": np.stack([times / 4, np.full(100, 0.75)], axis=1),
    }
    np.savez(folder / "clip.targets.npz", **(known | arrays))
    return folder / "clip.mp4"


def read(video: Path, grid: tuple[int, int, int] = GRID, **where: Any) -> dict[str, list[np.ndarray]]:
    made = record(video, **where)
    return TargetReader(HEADS, 2, 2).read(made, [grid] * len(made.turns))


def test_a_second_shows_its_last_frame(tmp_path: Path) -> None:
    found = read(sidecar(tmp_path))
    assert [values.tolist() for values in found["event"]] == [[-1], [0], [1]]
    # The second frame of a second is the one at half of it: 12, 37 and 62 of 25 a second.
    assert [values.tolist() for values in found["court"]] == [[12 % 3] * 8, [37 % 3] * 8, [62 % 3] * 8]
    # A fraction of 0.12, 0.37, 0.62 of the width is column 0, 1, 2 of four; 0.75 of the height is row 1 of two.
    assert [values.tolist() for values in found["ball"]] == [[4], [5], [6]]


def test_a_window_in_the_middle(tmp_path: Path) -> None:
    found = read(sidecar(tmp_path), start=1.5, seconds=2)
    assert [values.tolist() for values in found["event"]] == [[1], [2]]


def test_two_steps_a_second(tmp_path: Path) -> None:
    found = TargetReader(HEADS, 1, 2).read(record(sidecar(tmp_path), seconds=1), [(2, 4, 8)])
    assert found["court"][0].tolist() == [0] * 8 + [12 % 3] * 8


def test_cells_take_what_lies_in_their_middle(tmp_path: Path) -> None:
    court = np.zeros((100, 4, 2), np.int32)
    court[:, 3, 1] = 2
    found = read(sidecar(tmp_path, court=court), grid=(1, 4, 6), seconds=1)
    assert found["court"][0].reshape(2, 3).tolist() == [[0, 0, 0], [0, 2, 2]]


@given(st.floats(-0.5, 1.5) | st.just(float("nan")), st.floats(-0.5, 1.5))
def test_what_is_outside_is_unknown(tmp_path_factory: pytest.TempPathFactory, x: float, y: float) -> None:
    video = sidecar(tmp_path_factory.mktemp("clip"), ball=np.tile([x, y], (100, 1)))
    (place,) = read(video, seconds=1)["ball"][0]
    inside = 0 <= x < 1 and 0 <= y < 1
    assert place == (int(y * 2) * 4 + int(x * 4) if inside else -1)


def test_classes_beyond_the_heads_are_unknown(tmp_path: Path) -> None:
    found = read(sidecar(tmp_path, event=np.full(100, 4)), seconds=1)
    assert found["event"][0].tolist() == [-1]


def test_without_a_sidecar_nothing_is_known(tmp_path: Path) -> None:
    found = read(tmp_path / "clip.mp4", seconds=2)
    assert {name: [values.tolist() for values in known] for name, known in found.items()} == {
        "event": [[-1]] * 2,
        "court": [[-1] * 8] * 2,
        "ball": [[-1]] * 2,
    }


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"event": np.zeros(7)}, r"event is \[7\], which does not fit picture of 100 frames"),
        ({"ball": np.zeros(100)}, r"ball is \[100\], which does not fit place"),
        ({"court": np.zeros((100, 2))}, "does not fit patch"),
    ],
)
def test_arrays_of_another_shape_are_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(SvmError, match=said):
        read(sidecar(tmp_path, **arrays))


def test_a_damaged_sidecar_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.targets.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(SvmError, match=r"clip\.targets\.npz is damaged"):
        read(tmp_path / "clip.mp4")
    np.savez(tmp_path / "other.targets.npz", times=np.zeros(3))
    with pytest.raises(SvmError, match=r"lacks an array of auxiliary\.heads: event"):
        read(tmp_path / "other.mp4")


def losses(parts: int, known: dict[str, list[np.ndarray]], weights: LossWeights = BOTH) -> tuple[dict[str, float], Any]:
    model = small_model(small_config(ROWS))
    batch = make_batch([[make_sample(2, GRID, 1)], [make_sample(1, (1, 4, 4), 2)]])
    heads = VisionHeads(HEADS, 32)
    seed_weights(heads, 3)
    train_model = TrainModel(model, heads)
    microbatches = list(make_microbatches(batch, known, FullVocabulary(ROWS), VIDEO, parts))
    return WorkerPool(train_model, Compute(), []).compute_grads(microbatches, weights)


def targets(*event: int) -> dict[str, list[np.ndarray]]:
    cells = [np.array([0, 1, 2, 0, -1, 1, 2, 0]), np.full(8, -1), np.array([1, 1, 0, 2])]
    places = [np.array([5]), np.array([-1]), np.array([3])]
    return {"event": [np.array([e]) for e in event], "court": cells, "ball": places}


def test_videos_of_two_sizes_have_the_same_loss_together_or_apart() -> None:
    whole, grads = losses(1, targets(1, 0, 3))
    apart, same = losses(2, targets(1, 0, 3))
    assert whole.keys() == {"text", "event", "court", "ball"}
    assert apart == pytest.approx(whole, abs=1e-5)
    found, expected = same["model"]["visual"], grads["model"]["visual"]
    patches = found["patch_embed"]["proj"]["weight"], expected["patch_embed"]["proj"]["weight"]
    assert mx.allclose(*patches, atol=1e-6)
    assert mx.abs(patches[1]).max().item() > 1e-5


def test_a_head_of_which_nothing_is_known_has_no_loss() -> None:
    found, _ = losses(2, targets(-1, -1, -1))
    assert found.keys() == {"text", "court", "ball"}


def test_what_has_no_weight_is_left_out() -> None:
    assert losses(1, targets(1, 0, 3), LossWeights(1.0, 0.0))[0].keys() == {"text"}
    assert losses(1, targets(1, 0, 3), LossWeights(0.0, 1.0))[0].keys() == {"event", "court", "ball"}


def test_a_batch_of_clips_of_two_sizes(tmp_path: Path) -> None:
    """Each window is asked about the cells of its own clip."""
    small, large = make_sample(2, (1, 4, 4), 1), make_sample(3, (1, 4, 8), 2)
    windows: Any = [record(tmp_path / "absent.mp4", seconds=2), record(sidecar(tmp_path), seconds=3)]
    model = small_model(replace(small_config(ROWS), video_token_id=VIDEO))
    checkpoint: Any = SimpleNamespace(model=model, vocabulary=FullVocabulary(ROWS))
    microbatch_builder = MicrobatchBuilder(checkpoint, TargetReader(HEADS, 2, 2), 2, print)
    first, second = microbatch_builder.microbatches(make_batch([[small], [large]]), windows)
    assert first.head_targets["court"].tolist() == [-1] * 2 * 4
    assert second.head_targets["court"].tolist() == [12 % 3] * 8 + [37 % 3] * 8 + [62 % 3] * 8
    assert (first.head_targets["ball"].tolist(), second.head_targets["ball"].tolist()) == ([-1, -1], [4, 5, 6])


def test_a_shard_of_which_nothing_is_known_adds_nothing_to_heads_alone() -> None:
    known = {"event": targets(1, 2, -1)["event"], "court": [np.full(n, -1) for n in (8, 8, 4)]}
    known["ball"] = [np.array([-1])] * 3
    whole, grads = losses(1, known, LossWeights(0.0, 1.0))
    apart, same = losses(2, known, LossWeights(0.0, 1.0))
    assert whole.keys() == apart.keys() == {"event"}
    weights = (tree["heads"]["out"]["event"]["weight"] for tree in (grads, same))
    assert mx.allclose(*weights, atol=1e-6)


def test_the_mean_is_over_what_is_known() -> None:
    one, _ = losses(1, targets(1, -1, -1))
    other, _ = losses(1, targets(-1, 2, -1))
    both, _ = losses(1, targets(1, 2, -1))
    assert both["event"] == pytest.approx((one["event"] + other["event"]) / 2, abs=1e-6)
