"""``svm-tui models``: lists the checkpoints on this machine, and says which published sizes fit which memory."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streaming_vlm_mlx.plain_text import safe_json, visible
from tui.session_paths import CHECKPOINTS

if TYPE_CHECKING:
    from rich.console import Console

    from streaming_vlm_mlx.models.catalog import CheckpointSummary, Choice, Need

HELP = (
    "List the checkpoints of the package, in checkpoints/ and in the hub's cache, with the memory that each needs here "
    "under its own settings, and its preset; then what the published sizes need, and what to take: on a Mac by its "
    "memory, elsewhere on this machine."
)

GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, sizes in bytes")


@dataclass(frozen=True)
class Catalog:
    """All that the command prints; `memory` is this machine's, `limit` what a model may use of it, in bytes.

    On a Mac, whose limit follows from its memory, `choices` are for Macs of several sizes; elsewhere for this machine.
    """

    memory: int
    limit: int
    kind: str
    device: str
    checkpoints: "Sequence[CheckpointSummary]"
    needs: "Sequence[Need]"
    choices: "Sequence[Choice]"

    @property
    def mine(self) -> "Choice | None":
        """The choice for this machine: that of the largest memory which it has, nearly; None for a smaller machine."""
        # A system keeps some of the memory to itself and reports the rest.
        return next((c for c in reversed(self.choices) if self.memory >= 0.9 * c.memory), None)


def run(args: argparse.Namespace) -> int:
    """Print the lists."""
    found = _catalog()
    if args.json:
        print(safe_json(json.dumps(_as_json(found), indent=2, ensure_ascii=False)))
        return 0
    from rich.console import Console

    # A pipe has no width, and 80 columns would truncate names.
    console = Console(width=None if sys.stdout.isatty() else 160)
    _print_checkpoints(found, console)
    _print_needs(found, console)
    _print_choices(found, console)
    return 0


def _catalog() -> Catalog:
    from streaming_vlm_mlx import backend

    machine = backend.prepare()
    from streaming_vlm_mlx.hub_download import Hub
    from streaming_vlm_mlx.memory import machine_memory
    from streaming_vlm_mlx.models.catalog import Computing, choices, choose, list_checkpoints, published_needs
    from streaming_vlm_mlx.models.memory_budget import memory_limit

    computing = Computing(machine.dtype, machine.device == "gpu", memory_limit())
    needs = published_needs(None, machine.dtype, computing.gpu)
    checkpoints = list(list_checkpoints(CHECKPOINTS, Hub.of_environment().cache, computing))
    device = f"{machine.kind}, {str(machine.dtype).rsplit('.', 1)[-1]}"
    memory, limit = machine_memory(), computing.limit
    taken = choices(needs) if machine.kind == "Metal" else [choose(needs, memory, limit)]
    return Catalog(memory, limit, machine.kind, device, checkpoints, needs, taken)


def _as_json(found: Catalog) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    mine = found.mine
    return {**values, "mine": mine.memory if mine else None}


def _print_checkpoints(found: Catalog, console: "Console") -> None:
    from rich.table import Table

    from streaming_vlm_mlx.hub_download import format_size

    title = f"checkpoints; a model may use {found.limit / GIB:.1f} GiB here ({found.device})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("name", "place", "revision", "family"):
        table.add_column(name, overflow="fold")
    for name in ("bits", "on disk", "needs"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("fits", "preset"):
        table.add_column(name, overflow="fold")
    for one in (one for one in found.checkpoints if not one.is_foreign):
        revision = f"{one.revision or ''} {(one.commit or '')[:7]}".strip()
        needs = "" if one.peak is None else f"{one.peak / GIB:.{1 if one.peak > GIB // 10 else 2}f} GiB"
        fits = one.problem or ("yes" if one.fits else "no")
        bits = "" if one.bits is None else str(one.bits)
        row = (
            one.name,
            one.place,
            revision,
            one.family or "",
            bits,
            format_size(one.size),
            needs,
            fits,
            one.preset or "",
        )
        table.add_row(*map(visible, row))
    console.print(table, markup=False)
    foreign = [
        f"{one.name} ({one.problem.removeprefix('a model of type ')})" for one in found.checkpoints if one.is_foreign
    ]
    if foreign:
        text = visible(f"not listed, of kinds that do not run here: {', '.join(foreign)}")
        console.print(text, markup=False, highlight=False)
    console.print()


def _print_needs(found: Catalog, console: "Console") -> None:
    from rich.table import Table

    table = Table(
        title=f"published sizes {_where(found)}, 360p, default windows",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("model", no_wrap=True)
    bits = list(dict.fromkeys(need.bits for need in found.needs))
    for number in bits:
        table.add_column(f"{number} bits", justify="right", no_wrap=True)
    table.add_column("preset", no_wrap=True)
    for label, presets in dict.fromkeys((need.label, need.presets) for need in found.needs):
        table.add_row(label, *(f"{need.peak / GIB:.1f} GiB" for need in found.needs if need.label == label), presets)
    console.print(table, markup=False)
    console.print()


def _where(found: Catalog) -> str:
    """Return on what the published sizes are estimated."""
    return "on a CPU, in float32" if found.kind == "CPU" else "on a GPU"


def _print_choices(found: Catalog, console: "Console") -> None:
    from rich.table import Table

    many = len(found.choices) > 1
    table = Table(
        title=f"what to take on {'a Mac' if many else 'this machine'}", title_justify="left", box=None, pad_edge=False
    )
    if many:
        table.add_column("memory", no_wrap=True)
    table.add_column("for a model", justify="right", no_wrap=True)
    lines = list(dict.fromkeys(line for choice in reversed(found.choices) for line in choice.take))
    for line in lines:
        table.add_column(line, overflow="fold")
    for choice in found.choices:
        mark = "→ " if choice == found.mine else "  "
        cells = (describe_choice(line, choice.take.get(line)) for line in lines)
        memory = [f"{mark}{choice.memory // GIB} GB"] if many else []
        table.add_row(*memory, f"{choice.usable / GIB:.1f} GiB", *cells)
    console.print(table, markup=False)
    slow = (
        "On a CPU none of them keeps up with a live clip; use --pace every, or infer. " if found.kind == "CPU" else ""
    )
    row = "→ is this machine's row. " if many else ""
    console.print(f"{slow}{row}docs/models.md says how to get each.", highlight=False)


def describe_choice(line: str, need: "Need | None") -> str:
    """Return what to take of a line of models: the size where the line has several, the bits, and what it needs."""
    if need is None:
        return "–"
    size = need.model.removeprefix(line).strip()
    return f"{f'{size}, ' if need.model.startswith(line) else ''}{need.bits} bits: {need.peak / GIB:.1f} GiB"
