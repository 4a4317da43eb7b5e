"""How people look, apart from what they do."""

from dataclasses import dataclass

import numpy as np

from streaming_vlm_mlx.matches.kits import Rgb, distance

SKINS: tuple[Rgb, ...] = (
    (250, 214, 184),
    (232, 188, 150),
    (206, 156, 116),
    (160, 112, 76),
    (116, 78, 52),
    (82, 54, 38),
)
HAIRS: tuple[Rgb, ...] = ((28, 22, 20), (62, 42, 28), (104, 70, 40), (196, 160, 92), (150, 78, 36), (128, 126, 124))
SKIN_APART = 30.0


@dataclass(frozen=True, slots=True)
class Look:
    """Colours of a person; `cap` None is bare-headed, `long_hair` a pony tail, `sleeves` None leaves the arms bare."""

    shirt: Rgb
    shorts: Rgb
    skin: Rgb
    hair: Rgb
    cap: Rgb | None = None
    long_hair: bool = False
    sleeves: Rgb | None = None


def shaded(rgb: Rgb, by: float) -> Rgb:
    """Return `rgb` times `by`, kept within 0 to 255."""
    r, g, b = (int(min(max(c * by, 0), 255)) for c in rgb)
    return r, g, b


def random_look(rng: np.random.Generator, shirt: Rgb, shorts: Rgb) -> Look:
    """Draw skin, hair and head wear for these clothes, of a skin that they stand out from."""
    skins = [s for s in SKINS if distance(s, shirt) > SKIN_APART]
    skin, hair = skins[rng.integers(len(skins))], HAIRS[rng.integers(len(HAIRS))]
    cap = shirt if rng.random() < 0.4 else None
    return Look(shirt, shorts, skin, hair, cap, bool(rng.random() < 0.4))
