import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.train.microbatch import find_logits_to_keep, join_grids, make_microbatches
from tests.train.batching import ROWS, VIDEO, make_batch, make_sample

labels = st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4)
grids = st.sampled_from([(1, 4, 4), (1, 4, 6), (2, 6, 4)])
samples = st.builds(make_sample, st.integers(1, 3), grids, st.integers(0, 99))
rows = st.lists(st.lists(samples, min_size=1, max_size=2), min_size=1, max_size=4)


@given(labels)
def test_logits_are_kept_at_the_places_before_labels(train_set: list[list[bool]]) -> None:
    found = np.where(train_set, 5, -100).astype(np.int32)
    places, is_target = find_logits_to_keep(found)
    logits_to_keep = {
        (row, int(place)) for row, k in zip(*np.nonzero(is_target), strict=True) for place in [places[row, k]]
    }
    assert logits_to_keep == {
        (row, n - 1) for row, flags in enumerate(train_set) for n, flag in enumerate(flags) if flag and n
    }
    assert (places >= 0).all()
    assert (places < 9).all()


def test_neighbours_of_one_size_are_one_video() -> None:
    assert join_grids([[1, 12, 22], [2, 12, 22], [1, 22, 12], [1, 12, 22]]) == ((3, 12, 22), (1, 22, 12), (1, 12, 22))
    assert join_grids([]) == ()


@given(rows, st.integers(1, 5))
def test_microbatches_make_up_the_batch(made: list[list[object]], parts: int) -> None:
    batch = make_batch(made)  # type: ignore[arg-type]
    known = {"ball": [np.array([number], np.int32) for number in range(len(batch.tokens.video_grid_thw))]}
    microbatches = list(make_microbatches(batch, known, FullVocabulary(ROWS), VIDEO, parts))
    assert len(microbatches) == min(parts, len(made))
    assert np.array_equal(np.concatenate([microbatch.token_ids for microbatch in microbatches]), batch.tokens.input_ids)
    assert np.array_equal(np.concatenate([microbatch.pixel_values for microbatch in microbatches]), batch.pixel_values)
    assert np.concatenate([microbatch.head_targets["ball"] for microbatch in microbatches]).tolist() == list(
        range(len(batch.tokens.video_grid_thw))
    )
    train_set = batch.tokens.labels[:, 1:]
    targets = np.concatenate([microbatch.targets for microbatch in microbatches])
    assert np.array_equal(targets, train_set[train_set >= 0])


@given(rows)
def test_no_token_sees_ahead_or_another_sample(made: list[list[object]]) -> None:
    batch = make_batch(made)  # type: ignore[arg-type]
    (microbatch,) = make_microbatches(batch, {}, FullVocabulary(ROWS), VIDEO, 1)
    segments, n = batch.tokens.segments, batch.tokens.segments.shape[1]
    seen, places = microbatch.logits_mask[:, 0] == 0, microbatch.places
    for row, k in np.ndindex(places.shape):
        own = (segments[row] == segments[row, places[row, k]]) & (np.arange(n) <= places[row, k])
        assert np.array_equal(seen[row, k], own)
    if microbatch.mask is not None:
        everyone = microbatch.mask[:, 0] == 0
        for row, place in np.ndindex(segments.shape):
            own = (segments[row] == segments[row, place]) & (np.arange(n) <= place)
            assert np.array_equal(everyone[row, place], own)
    else:
        assert max(len(row) for row in made) == 1
