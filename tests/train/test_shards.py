import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming_vlm_mlx.text.vocabulary import FullVocabulary
from streaming_vlm_mlx.train.microbatch import ask, join_grids, make_shards
from tests.train.batching import ROWS, VIDEO, make_batch, make_sample

labels = st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4)
grids = st.sampled_from([(1, 4, 4), (1, 4, 6), (2, 6, 4)])
samples = st.builds(make_sample, st.integers(1, 3), grids, st.integers(0, 99))
rows = st.lists(st.lists(samples, min_size=1, max_size=2), min_size=1, max_size=4)


@given(labels)
def test_the_places_before_labels_are_asked(learnt: list[list[bool]]) -> None:
    found = np.where(learnt, 5, -100).astype(np.int32)
    places, is_learnt = ask(found)
    asked = {(row, int(place)) for row, k in zip(*np.nonzero(is_learnt), strict=True) for place in [places[row, k]]}
    assert asked == {(row, n - 1) for row, flags in enumerate(learnt) for n, flag in enumerate(flags) if flag and n}
    assert (places >= 0).all()
    assert (places < 9).all()


def test_neighbours_of_one_size_are_one_video() -> None:
    assert join_grids([[1, 12, 22], [2, 12, 22], [1, 22, 12], [1, 12, 22]]) == ((3, 12, 22), (1, 22, 12), (1, 12, 22))
    assert join_grids([]) == ()


@given(rows, st.integers(1, 5))
def test_shards_are_the_batch(made: list[list[object]], parts: int) -> None:
    batch = make_batch(made)  # type: ignore[arg-type]
    known = {"ball": [np.array([number], np.int32) for number in range(len(batch.tokens.video_grid_thw))]}
    shards = list(make_shards(batch, known, FullVocabulary(ROWS), VIDEO, parts))
    assert len(shards) == min(parts, len(made))
    assert np.array_equal(np.concatenate([shard.rows for shard in shards]), batch.tokens.input_ids)
    assert np.array_equal(np.concatenate([shard.pixel_values for shard in shards]), batch.pixel_values)
    assert np.concatenate([shard.known["ball"] for shard in shards]).tolist() == list(
        range(len(batch.tokens.video_grid_thw))
    )
    learnt = batch.tokens.labels[:, 1:]
    targets = np.concatenate([shard.targets for shard in shards])
    assert np.array_equal(targets, learnt[learnt >= 0])


@given(rows)
def test_nobody_looks_ahead_or_at_another_sample(made: list[list[object]]) -> None:
    batch = make_batch(made)  # type: ignore[arg-type]
    (shard,) = make_shards(batch, {}, FullVocabulary(ROWS), VIDEO, 1)
    segments, n = batch.tokens.segments, batch.tokens.segments.shape[1]
    seen, places = shard.asked_mask[:, 0] == 0, shard.places
    for row, k in np.ndindex(places.shape):
        own = (segments[row] == segments[row, places[row, k]]) & (np.arange(n) <= places[row, k])
        assert np.array_equal(seen[row, k], own)
    if shard.mask is not None:
        everyone = shard.mask[:, 0] == 0
        for row, place in np.ndindex(segments.shape):
            own = (segments[row] == segments[row, place]) & (np.arange(n) <= place)
            assert np.array_equal(everyone[row, place], own)
    else:
        assert max(len(row) for row in made) == 1
