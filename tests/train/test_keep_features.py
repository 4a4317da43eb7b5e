"""Tests that a frozen vision tower encodes each window once, without changing the losses."""

from pathlib import Path

import numpy as np
import pytest

from streaming_vlm_mlx.data import frame_workers as loading
from streaming_vlm_mlx.errors import SvmError
from tests.train.running import run, write_records

FROZEN = {"freeze": ["visual.*"]}


def test_the_losses_are_those_of_the_frames(tmp_path: Path) -> None:
    records = write_records(tmp_path)
    looked, _ = run(records, tmp_path / "a", **FROZEN)
    kept, _ = run(records, tmp_path / "b", keep_features=True, **FROZEN)
    assert len(kept.losses) == 6
    # Features are kept as float16.
    np.testing.assert_allclose(kept.losses, looked.losses, rtol=2e-3)


def test_each_window_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, read, seen = write_records(tmp_path), loading.read_frames, []

    def counted(*arguments):
        seen.append(arguments[:2])
        return read(*arguments)

    monkeypatch.setattr(loading, "read_frames", counted)
    heard, progress = run(records, tmp_path / "a", keep_features=True, schedule={"steps": 12}, **FROZEN)
    assert heard.steps[-1].epoch >= 2
    assert progress.windows > 3
    assert len(seen) == len(set(seen)) == progress.windows


@pytest.mark.parametrize(
    "settings",
    [
        {"keep_features": True},
        {
            "keep_features": True,
            **FROZEN,
            "auxiliary": {"heads": [{"name": "ball", "kind": "place"}]},
        },
    ],
)
def test_a_trained_tower_keeps_no_features(settings: dict, tmp_path: Path) -> None:
    with pytest.raises(SvmError, match="keep_features"):
        run(write_records(tmp_path), tmp_path / "a", **settings)
