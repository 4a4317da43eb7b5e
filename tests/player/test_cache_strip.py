"""The cache strip's cells."""

from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.stream.events import SpanView
from tests.player.fakes import span_map
from tui.player.transcript import Transcript
from tui.player.widgets.cache_strip import CacheCell, lay_strip, share

Rgb = tuple[int, int, int]


@given(st.integers(0, 200), st.lists(st.integers(1, 10**6), max_size=8))
def test_shares_add_up_and_nothing_is_lost_while_there_is_room(width: int, weights: list[int]) -> None:
    shares = share(width, weights)
    assert len(shares) == len(weights)
    if weights:
        assert sum(shares) == width
        assert all(cells >= (width >= len(weights)) for cells in shares)
        exact = [width * weight / sum(weights) for weight in weights]
        assert all(abs(cells - part) <= len(weights) + 1 for cells, part in zip(shares, exact, strict=True))


spans = st.lists(
    st.builds(
        SpanView,
        kind=st.sampled_from(["system", "previous", "user", "video", "text"]),
        round=st.integers(-1, 50),
        tokens=st.integers(1, 500),
    ),
    max_size=30,
)


@given(spans, spans, st.integers(0, 120))
def test_the_strip_has_its_width_and_its_order(kept: list[SpanView], dropped: list[SpanView], width: int) -> None:
    cells = lay_strip(kept, dropped, width)
    assert len(cells) == (width if kept or dropped else 0)
    order = ["sink", "previous", "text", "video"]
    places = [order.index(cell.part) for cell in cells]
    assert places == sorted(places)


def test_the_strip_is_to_scale() -> None:
    kept = [SpanView("system", -1, 100), SpanView("previous", -1, 100), SpanView("video", 3, 400)]
    cells = lay_strip(kept, [SpanView("video", 2, 400)], 103)
    assert [sum(c.part == part for c in cells) for part in ("sink", "previous", "video")] == [11, 11, 81]
    lit = [cell for cell in cells if cell.part == "video"]
    assert lit[0] == CacheCell("video", False, True)
    assert lit[-1] == CacheCell("video", True, False)
    assert abs(sum(cell.dropped for cell in lit) - len(lit) / 2) <= 1


def test_span_maps_of_the_stand_in_are_what_an_engine_sends() -> None:
    found = span_map(6)
    assert {s.round for s in found.spans if s.kind == "video"} == {3, 4, 5, 6}
    assert [s.round for s in found.dropped] == [2]
    assert Transcript().rows(0.0, True, 5) == []
