"""Who may import whom, and what stays out of a process that did not ask for it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tui.cli import COMMANDS

ROOT = Path(__file__).parents[1]
HEAVY = {"numpy", "mlx", "textual", "rich", "transformers", "tokenizers", "torch", "av", "PIL", "matplotlib"}

ENGINE = "the engine never imports the screen"
TENSORS, MODEL = "the command line and the player use no tensors", "the player knows no model"
LAYERS, CIRCLES = "the engine is built in layers", "no import circles"
IN_FUNCTION = "def late() -> None:\n    import"
BREAKS = [
    ("streaming_vlm_mlx/stream/events.py", "import rich", ENGINE),
    ("streaming_vlm_mlx/stream/events.py", "from textual.app import App", ENGINE),
    ("streaming_vlm_mlx/errors.py", f"{IN_FUNCTION} tui.cli", ENGINE),
    ("streaming_vlm_mlx/config.py", f"{IN_FUNCTION} streaming_vlm_mlx.hub", LAYERS),
    ("streaming_vlm_mlx/text/tokenizer.py", "import streaming_vlm_mlx.models.vlm", LAYERS),
    ("streaming_vlm_mlx/models/vlm.py", f"{IN_FUNCTION} streaming_vlm_mlx.stream.spans", LAYERS),
    ("streaming_vlm_mlx/stream/spans.py", "import streaming_vlm_mlx.data.dataset", LAYERS),
    ("streaming_vlm_mlx/data/dataset.py", "import streaming_vlm_mlx.train.loss", LAYERS),
    ("streaming_vlm_mlx/eval/text_metrics.py", f"{IN_FUNCTION} streaming_vlm_mlx.train.loss", LAYERS),
    ("streaming_vlm_mlx/stream/spans.py", f"{IN_FUNCTION} streaming_vlm_mlx.stream.masks", CIRCLES),
    ("tui/player/__init__.py", "import tui.commands.play", CIRCLES),
    ("tui/cli.py", f"{IN_FUNCTION} mlx.core", TENSORS),
    ("tui/player/app.py", "import streaming_vlm_mlx.models.vlm", MODEL),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the contracts in `folder`'s pyproject.toml."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def modules_after(code: str) -> set[str]:
    """Return the top-level packages in an interpreter that ran `code`."""
    tail = "\nimport json, sys\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + tail], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def module_names(package: str) -> list[str]:
    """Return the dotted names of all modules of `package`."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


@pytest.fixture
def linter() -> None:
    pytest.importorskip("importlinter", reason="import-linter is in the 'lint' extra")


@pytest.mark.usefixtures("linter")
def test_the_contracts_are_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("linter")
@pytest.mark.parametrize(("path", "line", "contract"), BREAKS)
def test_the_contracts_bite(path: str, line: str, contract: str, tmp_path: Path) -> None:
    for package in ("streaming_vlm_mlx", "tui"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.json"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / path).open("a") as module:
        module.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


def test_the_engine_leaves_the_screen_out() -> None:
    names = module_names("streaming_vlm_mlx")
    assert "streaming_vlm_mlx.stream.events" in names
    loaded = modules_after(f"import importlib\nfor name in {names}:\n    importlib.import_module(name)")
    assert "mlx" in loaded
    assert not loaded & {"textual", "rich", "tui"}


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after("from tui.cli import main\nmain(['--help'])")
    assert "tui" in loaded
    assert not loaded & (HEAVY | {"yaml", "asyncio"})


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    loaded = modules_after(f"from tui.cli import main\nmain(['{name}', '--help'])")
    assert not loaded & HEAVY
