"""A stream that prunes, for one machine or for several."""

import os

import numpy as np
import numpy.typing as npt

from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.generate import Session
from tests.stream.streams import force, make_second


def play(session: Session, bundle: ModelBundle, seconds: int, dies: int | None = None) -> npt.NDArray[np.float32]:
    """Return every logit of `seconds` seconds, [tokens, vocab]; in second `dies` the process ends as if it crashed."""
    forced = [int(i) for i in bundle.vocabulary.to_ids(np.array([9, 8, 11, 10], np.int32))]
    logits = []
    for number in range(seconds):
        if number == dies:
            os._exit(9)
        logits += force(session, bundle, make_second(number), forced).logits
    return np.array(logits)
