"""docs/ipc.md: its examples run on a player, and its tables name what there is."""

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.player.fakes import Scripted, until
from tests.player.ipc.conftest import StartServed
from tui.player.ipc.commands import SEEK_MODES, Commands
from tui.player.ipc.protocol import MAX_LINE, MAX_WAITING
from tui.player.ipc.server import BUDGET, HEAVY, MAX_CLIENTS, PORTION, TICK_RATE

PAGE = (Path(__file__).parents[3] / "docs" / "ipc.md").read_text(encoding="utf-8")
NAMED = "/tmp/player.sock"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def first_column(heading: str) -> list[str]:
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [row.split("|")[1] for row in table.splitlines()[2:]]


SOCAT = [line for block in blocks("sh") for line in block.splitlines() if "socat" in line]


@pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
async def test_the_examples_with_socat_run(start_served: StartServed, socket_path: Path) -> None:
    async with start_served(start=7.0) as (p, _):
        await p.engine.until_spoken(7)
        replies = []
        for line in SOCAT:
            assert NAMED in line
            shell = await asyncio.create_subprocess_shell(
                line.replace(NAMED, str(socket_path)), stdout=asyncio.subprocess.PIPE
            )
            out, _ = await shell.communicate()
            replies.append(json.loads(out))
        assert [reply["data"] for reply in replies] == [7.0, "Who leads?"]
        await p.pass_time(1)
        await p.engine.until_spoken(8)
        assert p.engine.questions == [(8, "Who leads?")]


async def test_the_example_in_python_runs(start_served: StartServed, socket_path: Path) -> None:
    (program,) = blocks("python")
    async with start_served(Scripted({1: "Blue, by two.\nand he serves"})) as (p, client):
        await p.engine.until_spoken(0)
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", program, str(socket_path), stdout=asyncio.subprocess.PIPE
        )
        assert p.app.server
        clients = p.app.server.clients
        await until(lambda: any(other.observed for other in clients))
        await client.command("ask", "who leads?")
        await p.pass_time(1)
        assert running.stdout
        assert await running.stdout.readline() == b"? who leads? - Blue, by two.\n"
        assert await running.stdout.readline() == b"1 s: and he serves\n"
        running.kill()
        await running.wait()


async def test_the_example_of_a_request_is_answered_like_that(start_served: StartServed) -> None:
    request, reply = blocks("json")[0].splitlines()
    async with start_served(start=30.0) as (p, client):
        await p.engine.until_spoken(30)
        client.send(f"{request}\n".encode())
        assert await client.reply() == json.loads(reply)
        await client.command("observe", "state")
        await client.command("pause")
        await client.command("get", "state")
        assert client.seen[-1] == json.loads(blocks("json")[1])


async def test_commands_and_properties_are_those_in_the_tables(start_served: StartServed) -> None:
    async with start_served() as (p, client):
        await p.engine.until_spoken(0)
        commands = re.findall(r"`([\w-]+)`", "".join(first_column("command")))
        assert p.app.server
        assert sorted(commands) == sorted(p.app.server.commands.names)
        properties = re.findall(r"`([\w.]+)`", "".join(first_column("property")))
        known = await client.command("get", "properties")
        sampling = {name for name in known if name.startswith("sampling.")}
        assert set(properties) - {"sampling", "properties"} == (set(known) - sampling) | {"sampling.temperature"}


def test_the_page_names_the_modes_and_limits() -> None:
    for mode in SEEK_MODES:
        assert f"`{mode}`" in PAGE
    assert MAX_CLIENTS == 16
    assert "more than the sixteenth" in PAGE
    assert TICK_RATE == 10
    assert f"leaves {MAX_WAITING >> 10} kB unread or sends a line of more than {MAX_LINE >> 10} kB" in " ".join(
        PAGE.split()
    )
    whole, heavy = round(BUDGET / PORTION), round(BUDGET / HEAVY / PORTION)
    assert f"{heavy} seeks or {whole} short requests a second" in PAGE


async def test_events_are_those_in_the_table() -> None:
    events = re.findall(r"`(\w+)`", "".join(first_column("event")))
    source = Path(sys.modules[Commands.__module__].__file__ or "").read_text(encoding="utf-8")
    told = set(re.findall(r'"event": "([\w-]+)"', source)) - {"text", "property-change"}
    assert set(events) == told
