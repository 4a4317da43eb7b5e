"""The processes of a distributed program, and what they tell one another.

``mlx.launch`` starts them, on one machine or on several, and MLX carries the numbers: over a ring of TCP connections,
or over whatever faster thing it finds. A process that ends takes its connections with it, so that its neighbours' next
word fails at once, and theirs after them.
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
    """The processes that go in step, seen from one of them; without others it is rank 0 of 1.

    All of them call the same methods in the same order. Every method raises an SvmError when another process was lost.
    """

    def __init__(self, group: mx.distributed.Group | None = None) -> None:
        """Speak through `group`; None stands alone."""
        self._group = group

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return self._group.rank() if self._group else 0

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self._group.size() if self._group else 1

    @property
    def is_main(self) -> bool:
        """Whether this one writes, and speaks to the user."""
        return self.rank == 0

    @property
    def group(self) -> mx.distributed.Group | None:
        """What MLX's own layers speak through; None without other processes."""
        return self._group

    def mean(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Return each array's mean over the processes."""
        if self._group is None:
            return dict(arrays)
        return self._told(lambda: cast(dict[str, mx.array], nn.average_gradients(dict(arrays), self._group)))

    def sum(self, array: mx.array) -> mx.array:
        """Return the sum of the arrays of all processes."""
        if self._group is None or not array.size:
            return array
        return self._told(lambda: mx.distributed.all_sum(array, group=self._group))

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return each number's sum over the processes, in float32; all must name the same."""
        if self._group is None:
            return dict(numbers)
        names = sorted(numbers)
        mine = mx.array([numbers[name] for name in names], mx.float32)
        return dict(zip(names, cast(list[float], self.sum(mine).tolist()), strict=True))

    def any(self, here: bool) -> bool:
        """Return whether `here` is true in any of the processes."""
        return self.total({"": float(here)})[""] > 0

    def all(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return the whole numbers that every process gives, in their order; all give as many, of 63 bits each."""
        if self._group is None:
            return [list(numbers)]
        mine = mx.array([list(numbers)], mx.int64)
        found = self._told(lambda: mx.distributed.all_gather(mine, group=self._group))
        return cast(list[list[int]], found.tolist())

    def check_same(self, named: Mapping[str, int]) -> None:
        """See to it that all processes begin with the same.

        Raises:
            SvmError: names the first of `named` that differs, and both values.
        """
        everyones = self.all(list(named.values()))
        for number, others in enumerate(everyones):
            for name, first, other in zip(named, everyones[0], others, strict=True):
                if first != other:
                    raise SvmError(
                        f"the machines do not begin with the same {name}: rank 0 has {first}, rank {number} has "
                        f"{other}; give all of them the same settings, records and folders."
                    )

    def _told(self, exchange: Callable[[], T]) -> T:
        try:
            found = exchange()
            mx.eval(found)
        except RuntimeError as error:
            raise SvmError(
                f"rank {self.rank} of {self.size}: another machine was lost ({error}); start all of them again, and "
                "training with --resume."
            ) from error
        return found


ALONE = Ranks()


def join(environment: Mapping[str, str]) -> Ranks:
    """Return the processes that this one was started with; alone, unless ``mlx.launch`` numbered it in `environment`.

    Raises:
        SvmError: the others cannot be reached.
    """
    if RANK not in environment:
        return ALONE
    try:
        group = mx.distributed.init(strict=True)
    except (RuntimeError, ValueError) as error:
        raise SvmError(
            f"{RANK} is {environment[RANK]}, but the other machines cannot be reached ({error}); look at the hostfile."
        ) from error
    return Ranks(group if group.size() > 1 else None)


def count_neighbours(environment: Mapping[str, str]) -> int:
    """Return how many of the processes run on this machine, this one counted, as far as `environment` tells.

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
        raise SvmError(f"{path} is no hostfile as mlx.launch hands it to the processes ({error}).") from error
