"""Messages between a training run and its workers."""

import threading
from multiprocessing import Pipe

import numpy as np
import pytest

from streaming_vlm_mlx.train.worker_process import receive, send

ARRAYS = {
    "larger than a pipe": np.arange(3_000_000, dtype=np.float32).reshape(3, -1),
    "strided": np.arange(12, dtype=np.int32).reshape(3, 4).T,
    "every second": np.arange(10, dtype=np.float32)[::2],
    "empty": np.zeros((0, 5), np.float32),
    "a number": np.array(2.5, np.float32),
}


def test_a_message_arrives_as_it_was_sent() -> None:
    here, there = Pipe()
    message = {"arrays": ARRAYS, "words": ("text", None, 3)}
    thread = threading.Thread(target=lambda: [send(here, message), send(here, "next")])
    thread.start()
    found = receive(there)
    assert receive(there) == "next"
    thread.join()
    assert found["words"] == message["words"]
    assert found["arrays"].keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(found["arrays"][name], array), name
        assert found["arrays"][name].dtype == array.dtype


@pytest.mark.parametrize("sent", [b"", b"part"])
def test_a_process_that_exits_ends_the_wait(sent: bytes) -> None:
    here, there = Pipe()
    if sent:
        here.send((b"", [100]))
    here.close()
    with pytest.raises((EOFError, OSError)):
        receive(there)
