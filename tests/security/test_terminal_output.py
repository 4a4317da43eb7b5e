"""Names and texts from outside reach a terminal, or an export, only as text."""

import re
import shutil
from pathlib import Path

import av
import pytest

from streaming_vlm_mlx.sessions.mp4 import write_mp4
from streaming_vlm_mlx.sessions.record import SessionRecord
from streaming_vlm_mlx.stream.events import GenerationResult
from tests.crash.assets import SECONDS, Assets
from tests.crash.interrupting import Command, Outcome, run
from tests.crash.launcher import Launcher
from tui.terminal_graphics import QUESTION

# Colours, a bell, C1's CSI, a bidirectional override, and markup of Rich and Textual.
ATTACK = "a\x1b[38;5;213m\x07\x9b2J\u202e[bold red]b[@click=app.quit]c[-]"
MARKUP = "[bold red]b[@click=app.quit]c[-]"
# What the player and Rich send themselves: sequences that begin with CSI, OSC 8 excepted, or set a mode.
OWN = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[()][0B]|[=>78]|\]\d+;[^\x07\x1b]*(\x1b\\|\x07))")
CONTROLS = re.compile("[\x00-\x07\x0b\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def check(outcome: Outcome) -> str:
    """Check what was written, and return it without the program's own sequences."""
    said = (outcome.err + outcome.out).decode("utf-8")
    assert "\x1b[38;5;213m" not in said
    # What the player asks the terminal before it starts.
    text = OWN.sub("", said.replace(QUESTION.decode(), "", 1))
    assert not CONTROLS.findall(text)
    return text


@pytest.fixture
def folder(assets: Assets, tmp_path: Path) -> Path:
    """A folder whose files have hostile names and hold hostile text."""
    shutil.copy(assets.clip, tmp_path / f"{ATTACK}.mp4")
    (tmp_path / f"{ATTACK}.vtt").write_text(f"WEBVTT\n\n00:00.000 --> 00:06.000\n{ATTACK} {ATTACK}\n")
    shutil.copytree(assets.training, tmp_path, dirs_exist_ok=True)
    seconds = tuple(GenerationResult(n, float(n), n + 1.0, ATTACK, query=ATTACK) for n in range(SECONDS))
    record = SessionRecord(clip=f"{ATTACK}.mp4", model=ATTACK, seconds=seconds, failure=ATTACK)
    (tmp_path / f"{ATTACK}.json").write_text(record.to_json())
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["play", f"{ATTACK}.mp4", "--pace", "every", "--ckpt", "{ckpt}", "--query", ATTACK],
        ["replay", f"{ATTACK}.json", "--pace", "every"],
        ["infer", f"{ATTACK}.mp4", "--ckpt", "{ckpt}", "--out", f"{ATTACK}.srt"],
        ["convert", f"{ATTACK}.mp4", f"{ATTACK}.vtt", "--out", f"{ATTACK}.jsonl"],
        ["train", "--config", "run.yaml", "--out", f"{ATTACK}.run", "--steps", "2"],
        ["validate", "--records", "train.jsonl", "--ckpt", "{ckpt}", "--json", f"{ATTACK}.figures.json"],
    ],
    ids=lambda words: words[0],
)
def test_a_terminal_gets_text_only(words: list[str], folder: Path, assets: Assets, launcher: Launcher) -> None:
    ckpt = folder / "checkpoints" / "small"
    ckpt.parent.mkdir()
    ckpt.symlink_to(assets.ckpt)
    environ = {"XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder), "COLORTERM": "truecolor"}
    filled = tuple(word.replace("{ckpt}", "small") for word in words)
    outcome = run(launcher, Command(filled, folder, environ, terminal=True, keys={SECONDS - 1: b"q"}))
    assert outcome.ended.status == 0, outcome.err[-500:]
    assert MARKUP in check(outcome) or words[0] in ("play", "replay", "convert")


def test_the_subtitles_in_a_clip_are_plain(assets: Assets, tmp_path: Path) -> None:
    hostile = f"<b>x</b> {{\\an8}} a --> b & {ATTACK}"
    write_mp4(tmp_path / "game.mp4", str(assets.clip), [GenerationResult(0, 0.0, 1.0, hostile)])
    with av.open(str(tmp_path / "game.mp4")) as made:
        packets = [bytes(packet) for packet in made.demux(made.streams.subtitles[0]) if packet.size > 2]
    (packet,) = packets
    length = int.from_bytes(packet[:2], "big")
    # A box of styles would follow the text.
    assert len(packet) == 2 + length
    text = packet[2:].decode("utf-8")
    assert text == f"‹b›x‹/b› (\\an8) a --› b & a[38;5;213m2J{MARKUP}"
