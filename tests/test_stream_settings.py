"""The stream settings of a checkpoint's folder."""

from pathlib import Path

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.stream_settings import read_stream_config


def test_stream_settings_of_a_folder(tmp_path: Path) -> None:
    assert read_stream_config(tmp_path) == StreamConfig()
    (tmp_path / "stream.yaml").write_text("window: 3\nsink: null\n", encoding="utf-8")
    assert read_stream_config(tmp_path) == StreamConfig(window=3, sink=None)
