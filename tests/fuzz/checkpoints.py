"""Damaged checkpoint folders and adapters: configs, indexes, headers, vocabularies, tokenizers, stream settings."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz.case import Case, check
from tests.fuzz.mutations import dump, encode, mutate_bytes, mutate_text, mutate_values, odd_value

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LIMIT = 1 << 29
PROCESSOR = {
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
# How often each file is damaged.
FILES = {
    CONFIG: 8,
    "header": 6,
    INDEX: 2,
    "vocabulary.json": 2,
    "stream.yaml": 2,
    "preprocessor_config.json": 2,
    "generation_config.json": 1,
    "tokenizer.json": 1,
    ADAPTER: 3,
    ADAPTER_WEIGHTS: 1,
}


def run(case: Case) -> None:
    """Write a checkpoint and an adapter, damage a file, and load them to speak a second."""
    rng, folder = case.rng, case.folder / "ckpt"
    folder.mkdir()
    files = _files(case)
    for name in rng.choices(list(FILES), list(FILES.values()), k=rng.choice((1, 1, 2))):
        _damage(rng, files, name)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    adapter = folder if ADAPTER in files else None
    case.attempt(lambda: _speak(folder, adapter))
    if rng.random() < 0.3:
        check(case.attempt(lambda: _list(case.folder)) is not None, "a damaged folder does not stop the list of others")


def _speak(folder: Path, adapter: Path | None) -> None:
    """Load the checkpoint as the player does, and comment on one second."""
    import mlx.core as mx

    from streaming_vlm_mlx.stream.bundle_loader import bundle_loader
    from streaming_vlm_mlx.stream.events import GenerationResult
    from streaming_vlm_mlx.stream.generate import SecondRequest, Session
    from streaming_vlm_mlx.stream_settings import read_stream_config
    from streaming_vlm_mlx.video.image_processor import patchify

    config = read_stream_config(folder)
    _, bundle = bundle_loader(folder, mx.float32, config, adapter, limit=LIMIT)(lambda _: None)
    session = Session(bundle, config)
    frames = np.full((max(round(min(config.fps, 4)), 1), 28, 56, 3), 90, np.uint8)
    patches = patchify(frames, config.pixels) if bundle.model.config.vision_config else None
    for index in range(2):
        last = list(session.generate(SecondRequest(index, float(index), index + 1.0, patches)))[-1]
        check(isinstance(last, GenerationResult), "a second ends with its result")


def _list(root: Path) -> list[object]:
    import mlx.core as mx

    from streaming_vlm_mlx.hub_cache import HubCache
    from streaming_vlm_mlx.models.catalog import Computing, list_checkpoints

    return list(list_checkpoints(root, HubCache(root / "absent"), Computing(mx.float32, False, LIMIT)))


def _files(case: Case) -> dict[str, bytes]:
    """Return the files of a small checkpoint, of one shard or of two, and in some cases of an adapter."""
    rng = case.rng
    saved = case.bases / "small"
    if not saved.exists():
        _save(saved)
    files = {path.name: path.read_bytes() for path in sorted(saved.iterdir()) if path.name != "tokenizer.json"}
    files["preprocessor_config.json"] = json.dumps(PROCESSOR).encode()
    files["generation_config.json"] = b'{"eos_token_id": [151645, 151643]}'
    if rng.random() < 0.3:
        header, data = _split(files.pop(WEIGHTS))
        names = sorted(name for name in header if name != "__metadata__")
        parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, own in parts.items():
            files[file] = _join(_repacked(header, data, own))
        weight_map = {name: file for file, own in parts.items() for name in own}
        files[INDEX] = json.dumps({"metadata": {"total_size": len(data)}, "weight_map": weight_map}).encode()
    if rng.random() < 0.25:
        files |= _adapter(rng)
    return files


def _save(folder: Path) -> None:
    from streaming_vlm_mlx.config import PixelConfig, SamplingConfig, StreamConfig
    from streaming_vlm_mlx.models.loading import Checkpoint, save_checkpoint
    from streaming_vlm_mlx.text.tokenizer import Tokenizer
    from tests.small import small_config, small_model, small_vocabulary

    tokenizer = Tokenizer.load()
    vocabulary = small_vocabulary(tokenizer, 400)
    stream = StreamConfig(
        window=2,
        text_round=2,
        sink=4,
        slide=4,
        pixels=PixelConfig(784, 28 * 56),
        sampling=SamplingConfig(max_new_tokens=3),
    )
    save_checkpoint(folder, Checkpoint(small_model(small_config(400)), tokenizer, vocabulary, stream))


def _adapter(rng: random.Random) -> dict[str, bytes]:
    """Return the files of an adapter of PEFT, or of mlx-lm."""
    from safetensors.numpy import save

    a, b = np.zeros((2, 32), np.float32), np.zeros((32, 2), np.float32)
    if rng.random() < 0.6:
        layer = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
        config: Any = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["layers.0.self_attn.q_proj"]}
        config |= {"bias": "none", "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None}
        expression = rng.choice(("(a+)+$", "(", r".*layers\.0\..*q_proj", r"(?:(\w|\w\w|.)+)+\d\d\1", "all-linear"))
        config |= rng.choice(({}, {"target_modules": expression}, {"rank_pattern": {expression: 2}}))
        return {
            ADAPTER: json.dumps(config).encode(),
            ADAPTER_WEIGHTS: save({f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}),
        }
    layer = "language_model.model.layers.0.self_attn.q_proj"
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 2, "scale": 2.0, "dropout": 0.0}}
    arrays = save({f"{layer}.lora_a": a.T.copy(), f"{layer}.lora_b": b.T.copy()})
    return {ADAPTER: json.dumps(config).encode(), "adapters.safetensors": arrays}


def _damage(rng: random.Random, files: dict[str, bytes], name: str) -> None:
    """Damage the file `name` of `files`, or leave it out."""
    if name == "header":
        name = rng.choice(sorted(file for file in files if file.endswith(".safetensors")))
        odd: Callable[[], bytes] = lambda: _odd_shard(rng, files[name])  # noqa: E731
    elif name == "tokenizer.json":
        files[name], odd = b"", lambda: _odd_tokenizer(rng)
    else:
        odd = lambda: _odd_settings(rng, name, files[name].decode())  # noqa: E731
    if name not in files:
        return
    if rng.random() < 0.04:
        del files[name]
        return
    try:
        files[name] = mutate_bytes(rng, files[name]) if rng.random() < 0.15 and files[name] else odd()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error, yaml.YAMLError):
        # It is damaged already.
        files[name] = mutate_bytes(rng, files[name])


def _odd_settings(rng: random.Random, name: str, text: str) -> bytes:
    if name.endswith(".yaml"):
        return encode(
            mutate_text(rng, text) if rng.random() < 0.5 else yaml.dump(mutate_values(rng, yaml.safe_load(text)))
        )
    value = json.loads(text)
    if rng.random() < 0.03:
        return _bomb(rng, value)
    if rng.random() < 0.4 and name == CONFIG:
        part = rng.choice((value, value["text_config"], value["vision_config"]))
        part[rng.choice(sorted(part))] = odd_value(rng)
        return encode(dump(value))
    if rng.random() < 0.15:
        value |= rng.choice(QUANTIZATIONS)
    return encode(dump(mutate_values(rng, value)))


QUANTIZATIONS: tuple[dict[str, Any], ...] = (
    {"quantization": {"group_size": 32, "bits": 4}},
    {"quantization": {"group_size": 64, "bits": 3, "mode": "mxfp4"}},
    {"quantization": {"bits": 8, "model.layers.0.mlp": False, "lm_head": {"bits": 2}}},
    {"quantization": {"layers": {"a": {"mode": [1]}}}},
    {"quantization_config": {"quant_method": "\x1b[31mgptq"}},
    {"model_type": "qwen3_vl"},
    {"model_type": "qwen2_vl"},
    {"model_type": "qwen3_vl_moe"},
    {"vision_config": None},
    {"vocabulary": "../vocabulary.json"},
    {"text_config": {}},
)


def _bomb(rng: random.Random, value: Any) -> bytes:
    size = rng.choice((1 << 20, 30 << 20, 63 << 20))
    fill = rng.choice(("[]", "{}", "1", '"ab"', "[1,2]"))
    return encode(dump(value)[:-1] + ',"more":[' + f"{fill}," * (size // (len(fill) + 1)) + "1]}")


def _split(shard: bytes) -> tuple[dict[str, Any], bytes]:
    """Return header and data of a safetensors file."""
    (length,) = struct.unpack("<Q", shard[:8])
    return json.loads(shard[8 : 8 + length]), shard[8 + length :]


def _join(parts: tuple[Any, bytes]) -> bytes:
    header = parts[0] if isinstance(parts[0], bytes) else encode(dump(parts[0]))
    return struct.pack("<Q", len(header)) + header + parts[1]


def _repacked(header: dict[str, Any], data: bytes, names: list[str]) -> tuple[dict[str, Any], bytes]:
    """Return header and data of the tensors `names` alone."""
    kept: dict[str, Any] = {}
    pieces: list[bytes] = []
    at = 0
    for name in names:
        begin, end = header[name]["data_offsets"]
        kept[name] = header[name] | {"data_offsets": [at, at + end - begin]}
        pieces.append(data[begin:end])
        at += end - begin
    return kept, b"".join(pieces)


DTYPES = ("F64", "I64", "U32", "U8", "BOOL", "F8_E4M3", "X", 5)
SHAPES: tuple[list[Any], ...] = ([0], [], [2**63], [2**32, 2**32], [-1], [1.5], [1] * 500)


def _odd_shard(rng: random.Random, shard: bytes) -> bytes:
    """Return the safetensors file `shard` with another header or length."""
    header, data = _split(shard)
    name = rng.choice(sorted(header))
    entry: Any = header[name]

    def with_entry(part: dict[str, Any]) -> bytes:
        return _join((header | {name: part}, data))

    def with_other_name() -> bytes:
        odd = rng.choice(("\x1b[31m", "a" * 9000, "\u202e", ""))
        return _join(({(odd if key == name else key): part for key, part in header.items()}, data))

    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    at_the_end = nothing | {"data_offsets": [len(data)] * 2}
    changes: dict[str, Callable[[], bytes]] = {
        "values": lambda: _join((mutate_values(rng, header), data)),
        "entry": lambda: with_entry(mutate_values(rng, entry)),
        "dtype": lambda: with_entry({**entry, "dtype": rng.choice(DTYPES)}),
        "shape": lambda: with_entry({**entry, "shape": rng.choice(SHAPES)}),
        "name": with_other_name,
        "length": lambda: struct.pack("<Q", rng.choice((0, 1, 2**63, 2**64 - 1, 100_000_001, 10**9))) + shard[8:],
        "bytes": lambda: shard[:8] + mutate_bytes(rng, shard[8:2000]) + shard[2000:],
        "cut": lambda: shard[: rng.randrange(len(shard))],
        "more": lambda: shard + bytes(rng.choice((1, 4096))),
        "empty tensor": lambda: _join((header | {"x.scales": at_the_end}, data)),
        "only an empty tensor": lambda: _join(({"x": nothing}, b"")),
        "deep": lambda: _join((encode('{"a":' * 5000 + "1" + "}" * 5000), data)),
        "many": lambda: _join(({f"t{n}": nothing for n in range(100_000)}, b"")),
        "metadata": lambda: _join((header | {"__metadata__": odd_value(rng)}, data)),
    }
    return changes[rng.choice(sorted(changes))]()


def _odd_tokenizer(rng: random.Random) -> bytes:
    """Return a small ``tokenizer.json`` that the library may refuse, or accept although it is not Qwen's."""
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    value: Any = {
        "version": "1.0",
        "added_tokens": [{"id": 3, "content": "<|im_start|>", "special": True, **flags}],
        "pre_tokenizer": as_bytes,
        "decoder": as_bytes,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    }
    if rng.random() < 0.3:
        patterns = ({"Regex": "(a+)+$"}, {"Regex": "("}, {"Regex": "a" * 99_999}, {"String": ""})
        split = {"type": "Split", "behavior": "Isolated", "invert": False}
        value["pre_tokenizer"] = split | {"pattern": rng.choice(patterns)}
    return encode(dump(mutate_values(rng, value)))
