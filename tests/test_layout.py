"""The number and size of modules, the size of functions, and names that are not used any more."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [path for package in ("streaming_vlm_mlx", "tui") for path in sorted((ROOT / package).rglob("*.py"))]
MOST_MODULES, MOST_LINES, MOST_LINES_OF_FUNCTION = 235, 420, 60

# Words that another word has replaced, and the packages in which they would be that word again.
FORMER_NAMES = {
    "streaming_vlm_mlx/train": (
        "crew hired helper Blueprint beginning feeding shards Shard savings publish Learner masters slopes anew "
        "row_tokens sights recompute"
    ),
    "streaming_vlm_mlx/stream": "Asked looked_until hidden_from_looking Spoken Chooser Parts SecondDone",
    "streaming_vlm_mlx/models": "Rows Fit Opened as_it_is Parts reading",
    "streaming_vlm_mlx/video": "opening Developer",
    "streaming_vlm_mlx/sessions": "SpokenSecond",
    "streaming_vlm_mlx/data": "complaints tellings sights",
    "tui": (
        "conductor Conductor Told Sought Passed Arrived Projector Shutter Shot Stills keeping stems refuge haste "
        "weigh locate SaidSecond"
    ),
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of lines of each function in a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def names_in(path: Path) -> set[str]:
    """Return all identifiers that a module defines or uses."""
    found = {path.stem}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.keyword(arg=str(name)):
                found.add(name)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=relative)
def test_no_test_is_skipped_for_a_module_of_our_own(path: Path) -> None:
    """Such a skip hides a module that was renamed."""
    own = "|".join(("tests", "streaming_vlm_mlx", "tui"))
    assert not re.search(rf"importorskip\(\s*[\"']({own})\b", path.read_text(encoding="utf-8"))


def test_there_are_few_modules() -> None:
    assert len([path for path in MODULES if path.name != "__init__.py"]) <= MOST_MODULES


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_short_and_so_are_its_functions(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    long = {name: lines for name, lines in functions(path) if lines > MOST_LINES_OF_FUNCTION}
    assert not long


@pytest.mark.parametrize("package", FORMER_NAMES)
def test_former_names_do_not_come_back(package: str) -> None:
    former = set(FORMER_NAMES[package].split())
    found = {relative(path): sorted(names_in(path) & former) for path in (ROOT / package).rglob("*.py")}
    assert not {path: names for path, names in found.items() if names}


def test_every_package_says_what_it_holds() -> None:
    silent = [relative(path) for path in MODULES if not re.match(r'(#![^\n]*\n)?"""\S', path.read_text("utf-8"))]
    assert not silent
