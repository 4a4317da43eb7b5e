"""No command opens a socket to a network unless an address or a name on the hub was given."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.assets import OWNER_NAME, SECONDS, Assets
from tests.crash.interrupting import Command, Outcome, run
from tests.crash.launcher import Launcher, can_forbid_network
from tests.video.clips import make_clip

pytestmark = pytest.mark.skipif(not can_forbid_network(), reason="watches sockets with Linux's seccomp")

Start = Callable[..., Outcome]


@pytest.fixture
def start(launcher: Launcher, assets: Assets, tmp_path: Path) -> Start:
    """Run a command line in a folder with a clip, records, annotations and a session; a socket ends it."""
    for source in (assets.training, assets.annotations.parent):
        for path in source.iterdir():
            if path.is_file():
                (tmp_path / path.name).symlink_to(path)
    (tmp_path / "clip.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:04.000\nwhat was really said\n")
    (tmp_path / "small").symlink_to(assets.ckpt)

    def begin(words: str, terminal: bool = False) -> Outcome:
        environ = {name: str(tmp_path / name) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HF_HOME")}
        keys = {SECONDS - 1: b"q"}
        command = Command(tuple(words.split()), tmp_path, environ, terminal=terminal, keys=keys, no_network=True)
        return run(launcher, command)

    return begin


@pytest.mark.parametrize(
    "words",
    [
        "infer clip.mp4 --ckpt small --duration 1",
        "infer train.jsonl --ckpt small --duration 1",
        "export session.json --out game.vtt",
        "export session.json --out game.mp4",
        "convert games_with_seeks.jsonl --out out.jsonl",
        "convert clip.mp4 clip.vtt --out out.jsonl",
        "convert-ckpt small smaller --bits 4 --group-size 32 --keep-vision",
        "train --config run.yaml --out run --steps 1",
        "validate --records train.jsonl --ckpt small",
        "models",
    ],
)
def test_local_files_need_no_network(words: str, start: Start) -> None:
    outcome = start(words)
    assert outcome.ended.status == 0, outcome.err[-500:]


@pytest.mark.parametrize("words", ["play clip.mp4 --ckpt small --pace every", "replay session.json --pace every"])
def test_the_player_needs_no_network(words: str, start: Start) -> None:
    outcome = start(words, terminal=True)
    assert outcome.ended.status == 0, outcome.err[-500:]
    assert SECONDS - 1 in outcome.shown


@pytest.mark.parametrize(
    "words", ["infer http://127.0.0.1:9/clip.mp4 --ckpt small", f"infer clip.mp4 --ckpt {OWNER_NAME}"]
)
def test_an_address_or_a_name_on_the_hub_is_asked_for(words: str, start: Start) -> None:
    assert start(words).ended.status == -signal.SIGSYS


PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\n"
ADDRESS = "http://127.0.0.1:9/part.ts"
ENCRYPTED = PLAYLIST.replace("#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{ADDRESS}"\n#EXTINF')
SESSION_DESCRIPTION = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
MANIFEST = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    f'mimeType="video/mp4"><Representation id="1"><BaseURL>{ADDRESS}</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>"
)


@pytest.mark.parametrize(
    "content",
    [
        f"{PLAYLIST}{ADDRESS}\n#EXT-X-ENDLIST\n",
        f"{PLAYLIST}part.ts\n#EXTINF:3.0,\n{ADDRESS}\n#EXT-X-ENDLIST\n",
        f"{ENCRYPTED}part.ts\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {ADDRESS}\n",
        SESSION_DESCRIPTION,
        MANIFEST,
        f"[Reference]\nRef1={ADDRESS}\n",
    ],
    ids=["playlist", "second part", "key", "concatenation", "session description", "manifest", "reference"],
)
@pytest.mark.parametrize("name", ["local.mp4", "local.m3u8"])
def test_a_local_file_that_names_an_address_does_not_reach_it(
    content: str, name: str, start: Start, tmp_path: Path
) -> None:
    make_clip(tmp_path / "part.ts")
    (tmp_path / name).write_text(content)
    assert start(f"infer {name} --ckpt small --duration 6").ended.status in (0, 2)
