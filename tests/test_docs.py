"""The documentation: its commands run or parse, its links lead somewhere, its settings and figures are the code's."""

import argparse
import dataclasses
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from textual.binding import Binding

from streaming_vlm_mlx.config import StreamConfig
from streaming_vlm_mlx.models.catalog import BITS, LINES, choices, published_needs
from streaming_vlm_mlx.models.memory_budget import GIB
from streaming_vlm_mlx.shipped import CHECKPOINT, recommendation
from streaming_vlm_mlx.train.config import TrainConfig
from tui import cli
from tui.commands.models import describe_choice
from tui.player.keymap import key_label
from tui.player.screens.player import PlayerScreen

ROOT = Path(__file__).parents[1]
CARD = ROOT / "streaming_vlm_mlx" / "shipped" / "matches" / "README.md"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted(ROOT.glob("docs/*.md")),
    CARD,
]
CONFIGS = sorted(ROOT.glob("configs/*/*.yaml"))

# What makes a command of the docs small enough for a test.
SMALLER = (
    (r"(?:Qwen|mit-han-lab)/[\w.@-]+", "base"),
    (r"^matches (\S+) .*?(--late)?.*$", r"matches \1 --count 1 --fps 4 --seconds 8 --ask 4"),
    (r"(^bench .*--seconds) \d+", r"\1 1"),
    (r"(^validate --matches) \d+(.*)", r"\1 1 \2 --seconds 2 --fps 4"),
    (r"(^infer (?!.*--duration).*)", r"\1 --duration 1"),
    (r"(^report (?!--matches|.*\.jsonl?\b).*)", r"\1 --duration 2"),
    (r"--start 10 --duration 5", "--start 1 --duration 1"),
    (r"(^train (?!.*--resume)(?!.*--steps).*)", r"\1 --steps 1"),
    (r"--steps \d+", "--steps 1"),
    (r"--split \w+ ", ""),
    # Only one of the two simulated matches is filmed.
    (r"--record 1", "--record 0"),
)
PIXELS = "{min_pixels: 784, max_pixels: 53400}"
# svm-tui lines that a test only parses, by what they contain.
PARSED = {
    r"^(play|replay)\b": "needs a terminal; tests/player runs it",
    r"mlx\.launch|MLX_RANK": "needs two machines; tests/distributed runs it",
    r"^infer https://": "needs a feed; tests/video and tests/commands run some",
    r"^bench --peers": "runs other programs for a long time; tests/commands runs it on a small model",
    r"--voice\b|--voice-command": "needs a program that speaks; tests/commands runs one",
    r"^report --matches": "films matches of a minute; tests/commands runs it on short ones",
    r"--benchmark": "measures this machine for a minute; tests/train runs it",
    r"\bCOMMAND\b|\bCLIP\b|…": "is a pattern",
}
# Other lines, and what runs them.
OTHERS = {
    r"^python3 -m venv .* && \S+/pip install .*": "set-up; .ci/run runs it",
    r"^\S*python -m pytest": "the tests themselves",
    r"^python -m tests\.fuzz\b": "tests/fuzz runs it",
    r"^\S*coverage run -m pytest": "the tests themselves, measured",
    r"^\S*python -m tests\.soak": "takes an hour; tests/test_soak.py runs a minute of it",
    r"^\S*python -m tests\.crash": "takes long; tests/crash runs a few of its cases",
    r"^pip install '\.\[bench\]'$": "needs a network; other tests run without what it installs",
    r"^(pip|pipx|uv tool) install '\.\[cpu\]'$": "needs a network; .ci/run installs the package",
    r"\| socat - UNIX-CONNECT:": "needs a player; tests/player/ipc runs it",
    r"^bash \.ci/run$": "what runs this test",
}


@dataclass(frozen=True)
class Line:
    """A command that a page shows: its program's words, and what stands before them."""

    page: str
    text: str

    @property
    def words(self) -> str:
        """What follows ``svm-tui``, empty for another program."""
        found = re.search(r"(?:^|/|\s)svm-tui\b ?(.*)$", self.text)
        return found.group(1) if found else ""


def shell_lines(page: Path) -> list[Line]:
    """Return the commands in the fenced blocks of `page`, each part of ``a && b`` for itself if it runs svm-tui."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.splitlines():
            text = re.sub(r"\s+#.*$", "", line).strip()
            head, _, last = text.rpartition(" && ")
            parts = (head, last) if "svm-tui " in last and head else (text,)
            found += [Line(str(page.relative_to(ROOT)), part) for part in parts if part]
    return found


def inline_lines(page: Path) -> list[Line]:
    """Return the svm-tui commands in the sentences of `page`, or in a configuration's comments."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".yaml":
        found = re.findall(r"svm-tui (?=\w+.* -)[^;\n]*", re.sub(r"\\\n#\s*", "", text))
    else:
        found = re.findall(r"`(svm-tui [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [Line(str(page.relative_to(ROOT)), " ".join(line.split())) for line in found]


SHELL = [line for page in PAGES for line in shell_lines(page)]
INLINE = [line for page in [*PAGES, *CONFIGS] for line in inline_lines(page)]
SVM = [line for line in [*SHELL, *INLINE] if line.words]


def matching(table: dict[str, str], line: Line) -> list[str]:
    return [why for pattern, why in table.items() if re.search(pattern, line.words) or re.search(pattern, line.text)]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise ValueError(message)


def parse(words: str) -> argparse.Namespace:
    """Parse a command line of svm-tui as the program does, but for abbreviated options.

    Raises:
        ValueError: there is no such command or option.
    """
    name, *rest = [word for word in shlex.split(words) if word != "--debug"] or [""]
    if name not in cli.COMMANDS:
        raise ValueError(f"no command {name!r}")
    module = importlib.import_module(f"tui.commands.{name.replace('-', '_')}")
    parser = Parser(name, allow_abbrev=False)
    module.add_arguments(parser)
    return parser.parse_args(rest)


def ids(line: Line) -> str:
    return f"{line.page}: {line.text}"


def test_pages_show_commands() -> None:
    assert len(SHELL) > 50
    assert {line.words.split()[0] for line in SHELL if line.words} >= set(cli.COMMANDS)


@pytest.mark.parametrize("line", SVM, ids=ids)
def test_command_lines_parse(line: Line) -> None:
    # A command's bare name in a sentence, and the patterns of the usage, name no arguments.
    if line.words not in (*cli.COMMANDS, "COMMAND --help", "--help", "…"):
        parse(line.words.removesuffix(" --help"))


def test_a_misspelt_option_does_not_parse() -> None:
    with pytest.raises(ValueError, match="unrecognized arguments: --dur"):
        parse("infer --dur 8")
    with pytest.raises(ValueError, match="no command"):
        parse("watch game.mp4")


def test_every_other_command_is_accounted_for() -> None:
    left = [line for line in SHELL if not line.words and not is_script(line) and not matching(OTHERS, line)]
    assert not left


def is_script(line: Line) -> bool:
    return bool(re.match(r"python (scripts|tests)/\w+\.py\b", line.text))


@pytest.mark.parametrize("line", [line for line in SHELL if is_script(line)], ids=ids)
def test_scripts_have_the_options_that_are_shown(line: Line) -> None:
    program, *words = shlex.split(line.text)[1:]
    shown = subprocess.run([sys.executable, program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for word in words:
        assert not word.startswith("-") or re.search(rf"{word}\b", shown.stdout), word


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages' commands read: clips, records, a session, checkpoints."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("matches clips --count 1 --fps 4 --seconds 8")
        for kind in ("with_seeks", "seeks"):
            shutil.copy(f"clips/matches_{kind}.jsonl", f"games_{kind}.jsonl")
        for clip in ("game.mp4", "clip.mp4"):
            shutil.copy("clips/match_000000.mp4", clip)
        for name in ("clip.srt", "game.srt"):
            Path(name).write_text("1\n00:00:00,500 --> 00:00:02,000\nBlue serves wide.\n", encoding="utf-8")
        run("convert games_with_seeks.jsonl --videos clips --out games.jsonl")
        for name in ("more", "train", "valid"):
            shutil.copy("games.jsonl", f"{name}.jsonl")
        Path("stream.yaml").write_text("window: 8\n", encoding="utf-8")
        for name in ("base", "run1", "small"):
            shutil.copytree(CHECKPOINT, name)
        run("infer game.mp4 --duration 2 --out session.json")
    return folder


@pytest.fixture
def folder(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `inputs` to work in, with the repository's configurations and folders of its own for the user."""
    work = tmp_path / "work"
    shutil.copytree(inputs, work)
    shutil.copytree(ROOT / "configs", work / "configs")
    for path in work.glob("configs/train/*.yaml"):
        path.write_text(smaller_config(path.read_text(encoding="utf-8")), encoding="utf-8")
    bench = (work / "configs" / "bench" / "tiny.yaml").read_text(encoding="utf-8")
    for name in ("tiny", "stream"):
        text = re.sub(r"max_new_tokens: \d+", "max_new_tokens: 4", bench)
        (work / "configs" / "bench" / f"{name}.yaml").write_text(text, encoding="utf-8")
    for name in ("STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    monkeypatch.chdir(work)
    return work


def smaller_config(text: str) -> str:
    """Return a training configuration for one window of small pictures an update, in this process."""
    for name, value in (("batch_size", 1), ("workers", 0), ("accumulate", 1)):
        text = re.sub(rf"\b{name}: \d+", f"{name}: {value}", text)
    return text if "pixels:" in text else text.replace("  batches:", f"  pixels: {PIXELS}\n  batches:")


def run(words: str) -> None:
    assert cli.main(shlex.split(words)) == 0, f"svm-tui {words}"


def smaller(words: str) -> str:
    """Return a command at the size of a test; what it makes is made again, and torch is used where it is installed."""
    for pattern, replacement in SMALLER:
        words = re.sub(pattern, replacement, words)
    if importlib.util.find_spec("torch") is None:
        words = words.replace(" --check", "")
    return words


def clear(words: str) -> None:
    """Remove what an earlier command, or the fixture, left where this one writes a folder."""
    args = vars(parse(words))
    made = args.get("dst") or args.get("out")
    if made and not args.get("resume") and Path(made).is_dir():
        shutil.rmtree(made)


RUN = {
    page: [line for line in SHELL if line.page == page and line.words and not matching(PARSED, line)]
    for page in {line.page: None for line in SHELL}
}


@pytest.mark.parametrize("page", [page for page, lines in RUN.items() if lines])
def test_the_commands_of_a_page_run_one_after_the_other(page: str, folder: Path) -> None:
    for line in RUN[page]:
        words = smaller(line.words)
        clear(words.replace("--debug ", ""))
        run(words)


def test_pictures_are_drawn_from_the_real_player(tmp_path: Path) -> None:
    program = ROOT / "scripts" / "draw_pictures.py"
    subprocess.run([sys.executable, program, "--moment", "1", "--out", tmp_path], cwd=ROOT, check=True)
    for name in ("player.png", "cache.png"):
        with Image.open(tmp_path / name) as drawn, Image.open(ROOT / "docs" / "pictures" / name) as kept:
            assert drawn.size == kept.size
            # A page without a picture has far fewer colours.
            assert len(drawn.convert("RGB").getcolors(1 << 24) or []) > 50


def targets(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            yield target


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of `page`."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in targets(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


PATHS = r"`((?:configs|scripts|tests|docs|streaming_vlm_mlx|tui)/[\w./-]*\w)`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_within_the_repository_exist(page: Path) -> None:
    text = re.sub(r"NAME|matches-(sight|look|words)", "", page.read_text(encoding="utf-8"))
    missing = [path for path in re.findall(PATHS, text) if not (ROOT / path).exists()]
    assert [path for path in missing if path not in ("configs/train/.yaml", "tui/commands/.py")] == []


def settings(part: type, prefix: str = "") -> Iterator[str]:
    """Yield the names of the settings of `part` and of the parts in it, as a user writes them."""
    hints = typing.get_type_hints(part)
    for field in dataclasses.fields(part):
        kinds = typing.get_args(hints[field.name]) if isinstance(hints[field.name], types.UnionType) else ()
        inner = next((kind for kind in (hints[field.name], *kinds) if dataclasses.is_dataclass(kind)), None)
        if isinstance(inner, type):
            yield from settings(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


@pytest.mark.parametrize(("page", "part"), [("training.md", TrainConfig), ("streaming.md", StreamConfig)])
def test_every_setting_is_documented_and_no_other(page: str, part: type) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition("\n## Settings\n")[2]
    rows = [re.findall(r"`([\w.]+)`", row.split("|")[1]) for row in text.splitlines() if row.startswith("| `")]
    shown = {name for row in rows for name in row}
    pixels = {name for name in settings(part) if name.startswith("data.pixels.")}
    assert shown - {"data.pixels"} == set(settings(part)) - pixels


NEEDS = {(need.label, need.bits): f"{need.peak / GIB:.1f} GiB" for need in published_needs()}


def needs_table() -> str:
    """Return the table of what the published sizes need, as docs/models.md has it."""
    rows = ["| model | 16 bits | 8 bits | 4 bits |", "| --- | --- | --- | --- |"]
    for model in dict.fromkeys(model for model, _ in NEEDS):
        rows.append(f"| {model} | {' | '.join(NEEDS[model, bits] for bits in BITS)} |")
    return "\n".join(rows)


def choices_table() -> str:
    """Return the table of what to take, as docs/models.md has it."""
    rows = [f"| memory | for a model | {' | '.join(LINES)} |", f"| --- | --- |{' --- |' * len(LINES)}"]
    for choice in choices(published_needs()):
        cells = " | ".join(describe_choice(line, choice.take.get(line)) for line in LINES)
        rows.append(f"| {choice.memory // GIB} GB | {choice.usable / GIB:.1f} GiB | {cells} |")
    return "\n".join(rows)


def test_the_tables_of_models_are_what_the_memory_budget_says() -> None:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for table in (needs_table(), choices_table()):
        assert [row for row in table.splitlines() if row not in text] == []


def test_the_readme_recommends_what_fits() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    three, seven = "Qwen2.5-VL 3B", "Qwen2.5-VL 7B, StreamingVLM"
    taken = {choice.memory: choice.take for choice in choices(published_needs())}
    for memory, model, bits in ((8, three, 4), (16, seven, 4), (32, seven, 8), (64, seven, 16)):
        assert (model, bits) in [(need.label, need.bits) for need in taken[memory << 30].values()]
        row = next(row for row in readme.splitlines() if row.startswith(f"| {memory} GB |"))
        assert row.endswith(f"| {NEEDS[model, bits]} |"), row
        assert ("3B" in row) == (model == three)
        # The hint on the screen says the same.
        assert f"needs {NEEDS[model, bits]}" in recommendation(memory << 30)


def test_every_key_is_in_the_table_of_the_player() -> None:
    text = (ROOT / "docs" / "player.md").read_text(encoding="utf-8").partition("## Keys")[2].partition("## Pace")[0]
    shown = set(re.findall(r"`([^`]+)`", "".join(row.split("|")[1] for row in text.splitlines() if row[:1] == "|")))
    spelt = {"pageup": "page up", "pagedown": "page down", "f1": "F1", "shift+←": "←", "shift+→": "→"}
    bindings = [binding for binding in PlayerScreen.BINDINGS if isinstance(binding, Binding)]
    keys = {key for binding in bindings for key in binding.key.split(",")}
    labels = {spelt.get(key_label(key), key_label(key)) for key in keys if not key.isdigit()}
    assert {label for label in labels if label not in shown} == set()


def test_every_action_that_can_have_another_key_is_named() -> None:
    text = (ROOT / "docs" / "player.md").read_text(encoding="utf-8").partition("## Settings")[2]
    named = set(re.findall(r"`([a-z0-9-]+)`", text.partition("The actions are")[2].partition(".\n")[0]))
    ids = {binding.id for binding in PlayerScreen.BINDINGS if isinstance(binding, Binding)}
    tenths = {f"seek-{tenth}0" for tenth in range(10)}
    assert named - tenths == ids - tenths
    assert tenths < ids


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
