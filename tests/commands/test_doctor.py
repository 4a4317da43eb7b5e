import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pty
import re
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from streaming_vlm_mlx import backend
from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.shipped import recommendation
from tui import cli
from tui.commands import doctor
from tui.commands import doctor as diagnosis
from tui.commands.doctor import Compute, Diagnosis, Machine, Model, Row, Sound, Terminal
from tui.terminal_graphics import QUESTION

GIB = 1 << 30
WELL = Diagnosis(
    compute=Compute("Metal", "bfloat16", "OpenBLAS", "/usr/lib/libopenblas.so.0", 90.5),
    machine=Machine("Linux x86_64", 2, 16 * GIB, 8 * GIB, nvidia=False),
    terminal=Terminal(100, 30, 1 << 24, interactive=True),
    sound=Sound("MacBook Pro Speakers", "say"),
    versions={"python": "3.12.1", "mlx": "0.32.4", "av": "17.0.0"},
    variables={},
    checkpoints="/home/x/checkpoints",
    state="/home/x/.local/state/svm-tui",
)


@pytest.fixture(autouse=True)
def _no_forced_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)


ON_CPU = Compute("CPU", "float32", "OpenBLAS", "/usr/lib/libopenblas.so.0", 90.5)


def model(peak: int) -> Model:
    """Return what a checkpoint needs of a limit of eight bytes."""
    return Model("run1", "bfloat16", {}, peak, limit=8, tokens=1, rounds=1, bounded=True, changes={})


def change(part: str, **values: Any) -> Diagnosis:
    return dataclasses.replace(WELL, **{part: dataclasses.replace(getattr(WELL, part), **values)})


def test_json_is_what_this_machine_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    prepared = backend.prepare()
    assert found["compute"]["kind"] == prepared.kind
    assert found["compute"]["blas"] == (prepared.blas.name if prepared.blas else None)
    assert found["compute"]["gflops"] > 0
    assert found["machine"]["cores"] <= (os.cpu_count() or 1)
    assert found["versions"]["mlx"] == importlib.metadata.version("mlx")
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["terminal"]["interactive"] is False


def test_lines_are_plain_when_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    assert {line[:2] for line in lines} <= {"✓ ", "⚠ ", "  "}
    names = [line[2:].split(": ", 1)[0] for line in lines]
    assert names[:6] == ["device", "BLAS", "matrix product", "machine", "memory", "versions"]


def run_in_terminal(*words: str, answer: bytes = b"", **variables: str) -> bytes:
    """Return what the program shows on a colour terminal of 60 columns, which gives `answer` when it is asked."""
    environ = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    environ |= {"TERM": "xterm-256color", "COLUMNS": "60"} | variables
    leader, follower = pty.openpty()
    program = [sys.executable, "-m", "tui", *words]
    root, stdin = Path(__file__).parents[2], follower if answer else subprocess.DEVNULL
    with subprocess.Popen(program, cwd=root, env=environ, stdin=stdin, stdout=follower) as running:
        os.close(follower)
        shown = b""
        # Linux ends a terminal that nobody holds with an error, others with nothing.
        with contextlib.suppress(OSError):
            while more := os.read(leader, 65536):
                shown += more
                if answer and QUESTION in shown:
                    os.write(leader, answer)
                    answer = b""
    os.close(leader)
    assert running.returncode == 0
    return shown


@pytest.mark.parametrize(("environ", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_a_table_and_colours_unless_it_declines(environ: dict[str, str], colored: bool) -> None:
    shown = run_in_terminal("doctor", **environ)
    text = re.sub(r"\x1b\[[\d;]*m", "", shown.decode())
    assert re.search(r"^✓ +device +(CPU|Metal|CUDA)", text, re.MULTILINE)
    assert re.search(r"^⚠ +terminal +60x", text, re.MULTILINE)
    assert re.search(r"^ +This terminal is small", text, re.MULTILINE)
    assert re.search(r"^ +graphics +not known", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 60
    assert bool(re.search(rb"\x1b\[[\d;]*3[1-7]m", shown)) is colored


def test_a_terminal_is_asked_for_its_graphics() -> None:
    answer = b"\x1b_Gi=31;OK\x1b\\\x1bP>|kitty(0.35.2)\x1b\\\x1b[?62;4c"
    shown = run_in_terminal("doctor", answer=answer, COLUMNS="100")
    text = re.sub(r"\x1b\[[\d;]*m", "", shown.decode())
    assert re.search(r"^ +graphics +Kitty, Sixel; the player draws Kitty images", text, re.MULTILINE)


def test_rows_of_a_healthy_machine() -> None:
    assert [(row.mark, row.name, row.value) for row in doctor.rows(WELL)] == [
        ("✓", "device", "Metal, bfloat16"),
        ("✓", "BLAS", "OpenBLAS, /usr/lib/libopenblas.so.0"),
        (" ", "matrix product", "90.5 GFLOP/s"),
        (" ", "machine", "Linux x86_64, 2 cores"),
        (" ", "memory", "16.0 GiB, 8.0 GiB available"),
        ("✓", "versions", "python 3.12.1, mlx 0.32.4, av 17.0.0"),
        ("✓", "terminal", "100x30, 16777216 colours"),
        (" ", "graphics", "not known: the terminal was not asked, or did not answer"),
        ("✓", "sound", "MacBook Pro Speakers"),
        ("✓", "voice", "say"),
        (" ", "checkpoints", "/home/x/checkpoints"),
        (" ", "state", "/home/x/.local/state/svm-tui"),
        ("✓", "for real sport", recommendation(16 * GIB)),
    ]


@pytest.mark.parametrize(
    ("kind", "limit", "needs"), [("CUDA", 10, "5.7 GiB"), ("CUDA", 100, "16.6 GiB"), ("CPU", 20, "5.7 GiB")]
)
def test_no_mac_is_advised_by_what_a_model_may_use(kind: str, limit: int, needs: str) -> None:
    """The machine has 16 GiB, of which a Mac would lend two thirds."""
    found = dataclasses.replace(WELL, compute=Compute(kind, limit=limit * GIB))
    rows = {row.name: row.value for row in doctor.rows(found)}
    assert f"needs {needs}" in rows["for real sport"]
    assert ("GiB for a model" in rows["memory"]) == (kind == "CUDA")


def test_a_machine_that_is_silent_says_why() -> None:
    silent = dataclasses.replace(
        WELL, sound=Sound(None, None, "there is no sound device; connect one.", "install espeak-ng.")
    )
    assert [row for row in doctor.rows(silent) if row.name in ("sound", "voice")] == [
        Row("sound", "none: there is no sound device; connect one."),
        Row("voice", "none: install espeak-ng."),
    ]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (change("compute", advice="Install a BLAS."), ["Install a BLAS."]),
        (dataclasses.replace(change("machine", nvidia=True), compute=ON_CPU), ["svm-tui[cuda]", "Without a GPU"]),
        (dataclasses.replace(WELL, compute=ON_CPU), ["--pace every, or infer"]),
        (dataclasses.replace(WELL, versions={"av": None, "mlx": "0.32.4"}), ["av cannot be found"]),
        (dataclasses.replace(WELL, model=model(peak=9)), ["does not fit; quantize it"]),
        (dataclasses.replace(WELL, model=model(peak=8)), []),
        (change("terminal", colors=16), ["xterm-256color"]),
        (change("terminal", columns=79), ["80 columns"]),
        (change("terminal", lines=23), ["24 lines"]),
        (change("terminal", colors=16, lines=23), ["xterm-256color if it can. This terminal is small"]),
        (change("terminal", graphics=()), []),
        (change("terminal", columns=20, colors=0, interactive=False), []),
        (dataclasses.replace(change("terminal", colors=0), variables={"NO_COLOR": "1"}), []),
        (WELL, []),
    ],
)
def test_advice_is_given_where_it_helps(found: Diagnosis, words: list[str]) -> None:
    assert len(found.advice) == len(words)
    assert all(word in line for word, line in zip(words, found.advice, strict=True))
    assert [row.advice for row in doctor.rows(found) if row.well is False] == found.advice


def test_without_mlx_it_says_so_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def prepare() -> None:
        raise SvmError("MLX cannot be loaded: install it.")

    monkeypatch.setattr(backend, "prepare", prepare)
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "⚠ device: none: MLX cannot be loaded → MLX cannot be loaded: install it."
    assert not [line for line in lines if line[2:].startswith(("BLAS", "matrix"))]


def test_only_variables_that_matter_and_are_set_are_named() -> None:
    ticks = count()
    found = diagnosis.diagnose({"OMP_NUM_THREADS": "1", "HOME": "/x"}, lambda: float(next(ticks)))
    assert found.variables == {"OMP_NUM_THREADS": "1"}
    assert Row("variable", "OMP_NUM_THREADS=1") in doctor.rows(found)
