"""What the tests of the text chapter share: documents of known words, in several domains."""

from collections.abc import Callable

import numpy as np
import pytest

from innerworks.text import Corpus, Document


@pytest.fixture(scope="session")
def make_corpus() -> Callable[..., Corpus]:
    """`make_corpus(40, length=30)`: so many documents of random known words, in two domains."""
    return _corpus


def _corpus(count: int = 40, *, length: int = 60, domains: tuple[str, ...] = ("owls", "cats"), seed: int = 0) -> Corpus:
    random = np.random.default_rng(seed)
    documents = [
        Document(
            id=f"d{i}",
            domain=domains[i % len(domains)],
            text=" ".join(f"w{j}" for j in random.integers(30, 320, length + i % 7)),
        )
        for i in range(count)
    ]
    return Corpus.of("made", documents)
