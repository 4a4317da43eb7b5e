"""The true transcript beside the commentary."""

from streaming_vlm_mlx.errors import SvmError
from tests.player.fakes import Scripted, StartPlayer, truth, until, wait
from tui.player.spec import Note
from tui.player.transcript import Timed
from tui.player.widgets.transcript_view import Heading, TranscriptView


async def test_g_cycles_the_truth(start_player: StartPlayer) -> None:
    async with start_player(read_truth=truth) as p:
        await p.engine.until_spoken(0)
        await p.read_truth()
        await p.pass_time(0.75)
        assert p.rows[0].truth == ("second", "nil")
        await p.press("g")
        assert p.screen.presenter.mode == "differences"
        assert (p.rows[0].added, p.rows[0].missed) == ({1}, {1})
        assert [meter.name for meter in p.screen.presenter.metrics.meters(0.0)][:3] == [
            "word errors",
            "ROUGE-L",
            "word delay",
        ]
        await p.press("g")
        assert (p.rows[0].truth, p.rows[0].added) == ((), frozenset())
        await p.press("g")
        assert p.rows[0].truth == ("second", "nil")


async def test_truth_is_shown_as_it_is_heard_and_before_the_model_is_there(start_player: StartPlayer) -> None:
    engine = Scripted()
    engine.loaded.clear()
    async with start_player(engine, read_truth=truth) as p:
        await p.read_truth()
        await p.press("space")
        await p.pass_time(1.25)
        assert [row.truth for row in p.rows] == [("second", "nil"), ("second",)]
        assert "loading" in p.notice


async def test_without_truth_the_commentary_has_the_whole_width(start_player: StartPlayer) -> None:
    long = " ".join(["word"] * 20)
    async with start_player(Scripted({0: long}), read_truth=lambda note: ()) as p:
        await p.engine.until_spoken(0)
        view = p.screen.query_one(TranscriptView)

        def longest() -> int:
            return max(len(strip.text.rstrip()) for strip in view.render_lines(view.size.region))

        p.screen.presenter.flush()
        await wait(p.pilot)
        assert longest() > view.size.width // 2 + 10
        assert p.screen.presenter.mode == "off"


async def test_a_broken_truth_is_told_and_the_clip_plays(start_player: StartPlayer) -> None:
    def broken(note: Note) -> tuple[Timed, ...]:
        raise SvmError("match.vtt holds no timed words.")

    async with start_player(read_truth=broken) as p:
        await p.engine.until_spoken(0)
        await until(lambda: p.notice)
        assert p.notice == "no truth: match.vtt holds no timed words."
        await p.press("g")
        assert p.screen.presenter.mode == "off"


async def test_columns_have_names_and_differences_a_key(start_player: StartPlayer) -> None:
    async with start_player(read_truth=truth) as p:
        heading = p.screen.query_one(Heading)
        await p.read_truth()
        await p.engine.until_spoken(0)
        await p.pass_time(0.75)
        row = p.screen.query_one(TranscriptView).render_line(0).text
        assert heading.render().plain.index("truth") == row.index("second nil")
        await p.press("g")
        assert heading.render().plain.split() == ["commentary", "·", "added", "truth", "·", "missed"]
        await p.press("g")
        assert heading.render().plain.split() == ["commentary"]


async def test_marks_have_their_names_in_a_narrow_terminal_too(start_player: StartPlayer) -> None:
    async with start_player(size=(41, 24), read_truth=truth) as p:
        await p.read_truth()
        await p.press("g")
        shown = p.screen.query_one(Heading)
        assert shown.render().plain == "commentary · added  › truth · missed"
        assert shown.render().cell_length <= shown.size.width
