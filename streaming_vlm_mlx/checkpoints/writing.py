"""Weights into shards, each written as soon as it is full."""

import json
from pathlib import Path

import mlx.core as mx

from streaming_vlm_mlx.atomic import write_text
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.model.shards import INDEX, WEIGHTS


class ShardWriter:
    """Gathers arrays until a shard is full; only that shard is held."""

    def __init__(self, folder: Path, limit: int, made_for: str) -> None:
        """Write into `folder`, `limit` bytes a shard at most; `made_for` (``pt``, ``mlx``) is told in the header."""
        self._folder, self._limit, self._made_for = folder, limit, made_for
        self._held: dict[str, mx.array] = {}
        self._shards: list[list[str]] = []
        self.nbytes = 0

    def add(self, name: str, array: mx.array) -> None:
        """Compute `array` and keep it for the next shard.

        Raises:
            SvmError: the folder can not be written.
        """
        mx.eval(array)
        if self._held and sum(a.nbytes for a in self._held.values()) + array.nbytes > self._limit:
            self._write()
        self._held[name] = array
        self.nbytes += array.nbytes

    def finish(self) -> int:
        """Write what is held, give the shards their names, add the index; return how many shards there are.

        Raises:
            SvmError: the folder can not be written.
        """
        self._write()
        count = len(self._shards)
        if count == 1:
            self._part(0).rename(self._folder / WEIGHTS)
            return count
        where: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._part(number).rename(self._folder / file)
            where |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self.nbytes}, "weight_map": dict(sorted(where.items()))}
        write_text(self._folder / INDEX, json.dumps(index, indent=1) + "\n")
        return count

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05}.safetensors"

    def _write(self) -> None:
        path = self._part(len(self._shards))
        try:
            mx.save_safetensors(str(path), self._held, {"format": self._made_for})
        except RuntimeError as error:
            raise SvmError(f"{self._folder} can not be written: {error}") from error
        self._shards.append(list(self._held))
        self._held = {}
        mx.clear_cache()
