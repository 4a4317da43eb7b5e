"""The ranks of a distributed program and their collective operations.

``mlx.launch`` starts the processes, on one machine or several, and ``mx.distributed`` connects them: over a ring of TCP
connections, or over a faster backend if there is one. When a process exits, its connections close, so the next
operation of its neighbours fails at once, and then theirs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import mlx.core as mx
import mlx.nn as nn

from streaming_vlm_mlx.errors import SvmError

RANK, HOSTS = "MLX_RANK", "MLX_HOSTFILE"
T = TypeVar("T")


class Ranks:
    """A group of processes, seen from one of them; a program that is not distributed is rank 0 of 1.

    All ranks call the same methods in the same order. Each method raises an SvmError if another rank has exited.
    """

    def __init__(self, group: mx.distributed.Group | None = None) -> None:
        """Communicate through `group`; None for a program that is not distributed."""
        self._group = group

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return self._group.rank() if self._group else 0

    @property
    def size(self) -> int:
        """The number of processes."""
        return self._group.size() if self._group else 1

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes files and reports to the user."""
        return self.rank == 0

    @property
    def group(self) -> mx.distributed.Group | None:
        """The group that MLX's distributed layers take; None for a program that is not distributed."""
        return self._group

    def mean(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Return each array's mean over the ranks."""
        if self._group is None:
            return dict(arrays)
        return self._exchange(lambda: cast(dict[str, mx.array], nn.average_gradients(dict(arrays), self._group)))

    def sum(self, array: mx.array) -> mx.array:
        """Return the sum of `array` over the ranks."""
        if self._group is None or not array.size:
            return array
        return self._exchange(lambda: mx.distributed.all_sum(array, group=self._group))

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return each number's float32 sum over the ranks; all ranks must give the same names."""
        if self._group is None:
            return dict(numbers)
        names = sorted(numbers)
        mine = mx.array([numbers[name] for name in names], mx.float32)
        return dict(zip(names, cast(list[float], self.sum(mine).tolist()), strict=True))

    def any(self, here: bool) -> bool:
        """Return whether `here` is true on any rank."""
        return self.total({"": float(here)})[""] > 0

    def all(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return the integers of each rank, in the order of ranks; all give equally many, of 63 bits each."""
        if self._group is None:
            return [list(numbers)]
        mine = mx.array([list(numbers)], mx.int64)
        gathered = self._exchange(lambda: mx.distributed.all_gather(mine, group=self._group))
        return cast(list[list[int]], gathered.tolist())

    def check_same(self, named: Mapping[str, int]) -> None:
        """Check that `named` is the same on all ranks.

        Raises:
            SvmError: names the first value that differs, and both values.
        """
        gathered = self.all(list(named.values()))
        for number, others in enumerate(gathered):
            for name, first, other in zip(named, gathered[0], others, strict=True):
                if first != other:
                    raise SvmError(
                        f"the ranks start with different {name}: rank 0 has {first}, rank {number} has {other}; give "
                        "all of them the same settings, records and folders."
                    )

    def _exchange(self, operation: Callable[[], T]) -> T:
        try:
            result = operation()
            mx.eval(result)
        except RuntimeError as error:
            raise SvmError(
                f"rank {self.rank} of {self.size} lost the connection to another rank ({error}); start all of them "
                "again, a training run with --resume."
            ) from error
        return result


ALONE = Ranks()


def join(environment: Mapping[str, str]) -> Ranks:
    """Return the ranks that ``mlx.launch`` started, according to `environment`; `ALONE` without a launcher.

    Raises:
        SvmError: the other ranks cannot be reached.
    """
    if RANK not in environment:
        return ALONE
    try:
        group = mx.distributed.init(strict=True)
    except (RuntimeError, ValueError) as error:
        raise SvmError(
            f"{RANK} is {environment[RANK]}, but the other ranks cannot be reached ({error}); check the hostfile."
        ) from error
    return Ranks(group if group.size() > 1 else None)


def count_neighbours(environment: Mapping[str, str]) -> int:
    """Return how many ranks run on this machine, this one included, according to `environment`.

    Raises:
        SvmError: the hostfile is damaged.
    """
    path = environment.get(HOSTS)
    if RANK not in environment or not path:
        return 1
    try:
        hosts = json.loads(Path(path).read_text(encoding="utf-8"))
        machines = [addresses[0].rpartition(":")[0] for addresses in hosts]
        return machines.count(machines[int(environment[RANK])])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SvmError(f"{path} is not a hostfile as mlx.launch writes it ({error}).") from error
