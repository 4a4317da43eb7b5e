from collections.abc import Iterator

import pytest

from streaming_vlm_mlx.models.loading import ModelBundle
from streaming_vlm_mlx.stream.async_engine import Engine
from streaming_vlm_mlx.text.tokenizer import Tokenizer
from streaming_vlm_mlx.text.vocabulary import CompactVocabulary, build, count_ids
from tests.stream.engines import CONFIG, Script, engine_threads, make_loader
from tests.stream.streams import make_bundle

SPOKEN = [" one two three goal shot saved ...", "The reds lead", " Who has the ball?", "Commentate on this match"]


@pytest.fixture(scope="session")
def vocabulary(tokenizer: Tokenizer) -> CompactVocabulary:
    """The rows that a model must have, and one for each word that the tests say."""
    return build(tokenizer, count_ids(tokenizer, SPOKEN), 400)


@pytest.fixture(scope="session")
def bundle(tokenizer: Tokenizer, vocabulary: CompactVocabulary) -> ModelBundle:
    """A small model with vision."""
    return make_bundle(tokenizer, vocabulary)


@pytest.fixture
def script(vocabulary: CompactVocabulary) -> Script:
    """What the engine says."""
    return Script(vocabulary)


@pytest.fixture
def engine(tokenizer: Tokenizer, script: Script) -> Iterator[Engine]:
    """An engine that says the script; its thread is let go and ended at the test's end."""
    engine = Engine(make_loader(tokenizer, script), CONFIG)
    yield engine
    script.go()
    engine.close()
    assert not engine_threads()
