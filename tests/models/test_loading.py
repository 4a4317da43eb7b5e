"""Tests that checkpoints load bit for bit as they were saved, and that damage is reported in one line."""

import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from streaming_vlm_mlx.config import SamplingConfig, StreamConfig
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.models.loading import Checkpoint, checkpoint_notes, load_checkpoint, save_checkpoint
from streaming_vlm_mlx.shipped import CHECKPOINT
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, FullVocabulary
from tests.small import small_config, small_model, small_vocabulary
from tui.commands.options import make_engine

STREAM = StreamConfig(window=3, sink=None, sampling=SamplingConfig(temperature=0.5))
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> CompactVocabulary:
    return small_vocabulary(tokenizer, 400)


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, vocabulary: CompactVocabulary
) -> tuple[Path, Checkpoint]:
    """An untied checkpoint, and the folder that it was saved to; not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run1"
    checkpoint = Checkpoint(small_model(small_config(len(vocabulary), tied=False)), tokenizer, vocabulary, STREAM)
    save_checkpoint(folder, checkpoint)
    return folder, checkpoint


@pytest.fixture
def folder(
    saved: tuple[Path, Checkpoint], tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the saved folder, to be spoilt; its tokenizer, which takes a while to read, is taken as read."""
    monkeypatch.setattr(Tokenizer, "load", lambda _: tokenizer)
    return shutil.copytree(saved[0], tmp_path / "run1")


def assert_same_weights(ours: Checkpoint, theirs: Checkpoint) -> None:
    assert [n for n, _ in ours.model.named_arrays()] == [n for n, _ in theirs.model.named_arrays()]
    for (name, array), (_, other) in zip(ours.model.named_arrays(), theirs.model.named_arrays(), strict=True):
        assert mx.array_equal(array, other), name


def edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    weights = mx.load(str(folder / WEIGHTS))
    assert isinstance(weights, dict)
    # Read before the file is written over.
    mx.eval(weights)
    change(weights)
    mx.save_safetensors(str(folder / WEIGHTS), weights)


def shard(folder: Path, bundle: int = 3) -> list[str]:
    """Lay the weights into `bundle` files beside an index."""
    weights = mx.load(str(folder / WEIGHTS))
    assert isinstance(weights, dict)
    names = sorted(weights)
    where = {name: f"model-{number % bundle}.safetensors" for number, name in enumerate(names)}
    for file in set(where.values()):
        mx.save_safetensors(str(folder / file), {n: weights[n] for n in names if where[n] == file})
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    (folder / WEIGHTS).unlink()
    return names


def refused(folder: Path) -> str:
    with pytest.raises(SvmError) as caught:
        load_checkpoint(folder, mx.float32)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_saved_checkpoint_loads_unchanged(saved: tuple[Path, Checkpoint]) -> None:
    folder, checkpoint = saved
    loaded = load_checkpoint(folder, mx.float32)
    assert_same_weights(loaded, checkpoint)
    assert loaded.model.config == checkpoint.model.config
    assert loaded.stream == STREAM
    assert loaded.vocabulary.digest == checkpoint.vocabulary.digest
    assert loaded.tokenizer.encode("Là, a goal!") == checkpoint.tokenizer.encode("Là, a goal!")
    assert loaded.tokenizer.name == str(folder / "tokenizer.json")


@pytest.mark.parametrize("vision", [True, False], ids=["with vision", "text alone"])
def test_a_tied_checkpoint_holds_no_head(
    tmp_path: Path, tokenizer: Tokenizer, vocabulary: CompactVocabulary, vision: bool
) -> None:
    model = small_model(small_config(len(vocabulary), vision=vision, tied=True))
    checkpoint = Checkpoint(model, tokenizer, vocabulary, STREAM)
    save_checkpoint(tmp_path / "run", checkpoint)
    loaded = load_checkpoint(tmp_path / "run", mx.float32)
    assert_same_weights(loaded, checkpoint)
    names = [n for n, _ in loaded.model.named_arrays()]
    assert "lm_head.weight" not in names
    assert any(n.startswith("visual.") for n in names) is vision


def test_without_a_vocabulary_file_every_id_is_a_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = small_model(replace(small_config(151_936, layers=1, vision=False), vocabulary=None))
    save_checkpoint(tmp_path / "run", Checkpoint(model, tokenizer, FullVocabulary(151_936), STREAM))
    loaded = load_checkpoint(tmp_path / "run", mx.float32)
    assert loaded.vocabulary == FullVocabulary(151_936)
    assert loaded.vocabulary.to_rows([151_656, 0]).tolist() == [151_656, 0]
    assert not (tmp_path / "run" / "vocabulary.json").exists()


def test_shards_are_loaded_and_reported_one_by_one(folder: Path, saved: tuple[Path, Checkpoint]) -> None:
    shard(folder)
    steps: list[tuple[str, int, int]] = []
    loaded = load_checkpoint(folder, mx.float32, lambda *step: steps.append(step))
    assert_same_weights(loaded, saved[1])
    assert steps == [*((f"model-{k}.safetensors", k, 3) for k in range(3)), ("weights", 3, 3)]


def test_bfloat16_is_cast_as_requested(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({n: a.astype(mx.bfloat16) for n, a in w.items()}))
    half, single = (load_checkpoint(folder, dtype) for dtype in (mx.bfloat16, mx.float32))
    for (name, array), (_, other) in zip(half.model.named_arrays(), single.model.named_arrays(), strict=True):
        assert (array.dtype, other.dtype) == (mx.bfloat16, mx.float32), name
        assert mx.array_equal(array.astype(mx.float32), other), name


def test_the_hubs_newer_names_are_read(folder: Path, saved: tuple[Path, Checkpoint]) -> None:
    def rename(weights: dict[str, mx.array]) -> None:
        for name in list(weights):
            if name.startswith("visual."):
                weights[f"model.{name}"] = weights.pop(name)
            elif name.startswith("model."):
                weights[name.replace("model.", "model.language_model.", 1)] = weights.pop(name)

    edit_weights(folder, rename)
    assert_same_weights(load_checkpoint(folder, mx.float32), saved[1])


def test_a_folder_without_stream_settings_has_the_defaults(folder: Path) -> None:
    (folder / "stream.yaml").unlink()
    assert load_checkpoint(folder, mx.float32).stream == StreamConfig()


def test_a_missing_tensor(folder: Path) -> None:
    edit_weights(folder, lambda w: w.pop("model.layers.1.mlp.up_proj.weight"))
    assert "lacks the tensor model.layers.1.mlp.up_proj.weight" in refused(folder)


def test_an_unknown_tensor(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({"model.layers.7.norm.weight": mx.zeros(3)}))
    assert "holds the tensor model.layers.7.norm.weight" in refused(folder)


def test_a_tensor_of_another_shape(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({"model.norm.weight": mx.zeros(31)}))
    assert "model.norm.weight is [31], its config.json calls for [32]" in refused(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path} is truncated or not a safetensors file" in refused(folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x04not a tensor", bytes(64)], ids=["empty", "pickle", "zeros"])
def test_weights_that_are_not_safetensors(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    assert "truncated or not a safetensors file" in refused(folder)


def test_a_dtype_that_mlx_does_not_know(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({"model.norm.weight": mx.zeros(64)}))
    content = (folder / WEIGHTS).read_bytes()
    at = content.index(b'"model.norm.weight"')
    entry = content[at : content.index(b"}", at)]
    doubles = entry.replace(b'"F32"', b'"F64"').replace(b"[64]", b"[32]")
    (folder / WEIGHTS).write_bytes(content.replace(entry, doubles))
    assert "unsupported dtype F64" in refused(folder)


def test_a_pickle_is_not_opened(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle" in refused(folder)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert "holds neither model.safetensors nor model.safetensors.index.json" in refused(folder)


def test_an_index_that_names_an_absent_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-1.safetensors").unlink()
    assert "lacks model-1.safetensors, which model.safetensors.index.json names" in refused(folder)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', "[]", "{"])
def test_an_index_that_is_not_json(folder: Path, content: str) -> None:
    (folder / f"{WEIGHTS}.index.json").write_text(content, encoding="utf-8")
    assert f"{WEIGHTS}.index.json" in refused(folder)


def test_a_model_of_another_family(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="llama")
    said = refused(folder)
    assert said.startswith(
        f"{folder}: a model of type 'llama' does not run here; take one of these families: Qwen2-VL, "
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "no settings"),
        (None, "No such"),
    ],
)
def test_a_config_that_is_not_json(folder: Path, content: bytes | None, said: str) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    assert said in refused(folder)


def test_a_vocabulary_of_another_size(folder: Path, tokenizer: Tokenizer) -> None:
    small_vocabulary(tokenizer, 401).save(folder / "vocabulary.json")
    assert "lists 401 ids, config.json says 400" in refused(folder)


def test_fewer_rows_than_the_tokenizer_has_ids(folder: Path) -> None:
    edit_json(folder / "config.json", vocabulary=None)
    assert "has 400 rows for the 151665 ids of its tokenizer" in refused(folder)


def test_a_tokenizer_of_another_family(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert "tokenizer.json" in refused(folder)


def test_saving_breaks_off_and_the_old_folder_stays(
    folder: Path, saved: tuple[Path, Checkpoint], tokenizer: Tokenizer, vocabulary: CompactVocabulary
) -> None:
    other = small_model(small_config(len(vocabulary), tied=False), seed=1)

    def break_off(part: Path) -> None:
        assert (part / WEIGHTS).is_file()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, replace(saved[1], model=other), break_off)
    assert_same_weights(load_checkpoint(folder, mx.float32), saved[1])
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let the system refuse to write beyond `size` bytes of a file, as a full disk does."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [100, 50_000], ids=["for little", "for all but tokenizer and weights"])
def test_a_disk_that_fills_up_leaves_the_old_folder(folder: Path, saved: tuple[Path, Checkpoint], room: int) -> None:
    with files_end_at(room), pytest.raises(SvmError, match="cannot be written") as caught:
        save_checkpoint(folder, saved[1])
    assert "\n" not in str(caught.value)
    assert_same_weights(load_checkpoint(folder, mx.float32), saved[1])
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_weights_that_the_disk_does_not_take(
    folder: Path, saved: tuple[Path, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = mx.save_safetensors

    def save_on_full_disk(*args: Any) -> None:
        with files_end_at(4096):
            save(*args)

    monkeypatch.setattr(mx, "save_safetensors", save_on_full_disk)
    with pytest.raises(SvmError, match=rf"{folder} cannot be written"):
        save_checkpoint(folder, saved[1])
    monkeypatch.undo()
    assert_same_weights(load_checkpoint(folder, mx.float32), saved[1])


def test_a_file_in_place_of_the_folder(tmp_path: Path, saved: tuple[Path, Checkpoint]) -> None:
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    with pytest.raises(SvmError, match="is a file"):
        save_checkpoint(tmp_path / "run", saved[1])
    assert (tmp_path / "run").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["../words.json", "/etc/hosts", "a/words.json", "..", ""])
def test_a_vocabulary_outside_the_folder_is_refused(saved: tuple[Path, Checkpoint], name: str) -> None:
    folder, checkpoint = saved
    assert isinstance(checkpoint.vocabulary, CompactVocabulary)
    checkpoint.vocabulary.save(folder.parent / "words.json")
    edit_json(folder / "config.json", vocabulary=name)
    assert f"vocabulary is {name!r}; it must be the name of a file in that folder" in refused(folder)


def test_a_folder_without_a_tokenizer_is_noted(saved: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    folder, _ = saved
    assert checkpoint_notes(folder) == []
    assert checkpoint_notes(tmp_path / "no folder") == []
    assert checkpoint_notes(CHECKPOINT) == []
    (folder / "tokenizer.json").unlink()
    (note,) = checkpoint_notes(folder)
    assert note.startswith(f"{folder} has no tokenizer.json; ")
    heard: list[str] = []
    engine, _ = make_engine(folder, StreamConfig(), heard.append)
    engine.close()
    assert note in heard
