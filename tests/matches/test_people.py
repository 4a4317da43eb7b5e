import pytest

from streaming_vlm_mlx.matches.match_truth import stream
from streaming_vlm_mlx.matches.people import KITS, SKINS, distance, lab, pairs
from streaming_vlm_mlx.matches.tennis.court import SURFACES
from streaming_vlm_mlx.matches.tennis.players import random_cast


def test_lab_agrees_with_published_values() -> None:
    """The corners of sRGB in CIE L*a*b* under D65, as Bruce Lindbloom's calculator gives them."""
    assert lab((255, 255, 255)) == pytest.approx((100.0, 0.0, 0.0), abs=0.1)
    assert lab((255, 0, 0)) == pytest.approx((53.24, 80.09, 67.20), abs=0.2)
    assert lab((0, 0, 255)) == pytest.approx((32.30, 79.19, -107.86), abs=0.2)


def test_there_are_ten_kits_and_all_are_worn() -> None:
    worn = {kit.name for s in SURFACES for pair in pairs(s.grounds) for kit in pair}
    assert len(KITS) >= 10
    assert worn == {k.name for k in KITS}


@pytest.mark.parametrize("surface", SURFACES, ids=lambda s: s.name)
def test_kits_stand_apart(surface) -> None:
    for seed in range(40):
        cast = random_cast(stream(seed, "cast"), surface)
        first, second = cast.kits
        assert distance(first.rgb, second.rgb) >= 50
        for kit, look in zip(cast.kits, cast.looks, strict=True):
            assert min(distance(kit.rgb, ground) for ground in surface.grounds) >= 35
            assert distance(look.shirt, kit.rgb) < 25
            assert look.skin in SKINS
            assert distance(look.skin, look.shirt) > 20
        assert cast.codes[0] != cast.codes[1]
