"""``infer`` on a feed: what it says of the connection, and how it ends."""

import json
from pathlib import Path

import pytest

from tests.video.feeds import HEAD, Visit, answering, feed_server, transport_stream
from tui import cli


def test_a_feed_that_comes_back_is_told_and_ends_the_run_when_it_is_over(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = transport_stream(tmp_path, 100)

    def whole(visit: Visit) -> None:
        visit.send(second, f"{HEAD}\r\nContent-Length: {len(second)}")
        visit.close()

    with feed_server() as server:

        def lost(visit: Visit) -> None:
            visit.send(transport_stream(tmp_path), HEAD)
            answering(server, whole)
            visit.close()

        answering(server, lost)
        address = f"http://127.0.0.1:{server.port}/live"
        out = tmp_path / "game.vtt"
        assert cli.main(["infer", address, "--ckpt", str(untrained), "--json", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["start"] for line in said.out.splitlines()] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert said.err.splitlines() == [
        f"svm-tui: {address}: the connection broke off; connecting again (1).",
        f"svm-tui: {address}: connected again.",
        f"svm-tui: {address}: the server closed the connection; the feed has ended.",
        f"svm-tui: {out} written.",
    ]
