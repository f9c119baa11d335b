"""Readings made of token ids, without a tokenizer; documents of different lengths, some of several windows."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from innerworks.text import Reading
from innerworks.text.reading import Unit, Window

ALPHABET = 14  # few tokens, so that every document repeats itself


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Models this small run no faster on two threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_reading() -> Callable[..., Reading]:
    """`make_reading(lengths=[...])`: one document per length (or list of lengths: its windows), in two strata."""
    return _reading


def _reading(*, documents: int = 12, sequences: int = 8, shortest: int = 9, longest: int = 40, seed: int = 0) -> Reading:
    random = np.random.default_rng(seed)
    units: list[Unit] = []
    windows: list[tuple[int, Window]] = []

    def add(id: str, stratum: str, material: str, half: str, texts: list[np.ndarray], alike: int | None) -> None:
        number = len(units)
        units.append(Unit(id=id, stratum=stratum, material=material, half=half))  # type: ignore[arg-type]
        for rank, text in enumerate(texts):
            tokens = tuple(int(token) for token in text)
            one = Window(unit=number, tokens=tokens, words=(None,) * len(tokens), alike=number if alike is None else alike)
            windows.append((rank, one))

    for i in range(documents):
        texts = [2 + random.integers(0, ALPHABET, random.integers(shortest, longest)) for _ in range(1 + (i % 5 == 0))]
        add(f"doc/{i}", f"stratum {i % 2}", "text", ("discovery", "confirmation")[i // 2 % 2], texts, None)
    for i in range(sequences):
        text = 2 + random.permutation(200)[:30]
        gap = 8 + i // 2 % 3  # some neighbours have the same gap: they are no partners
        text[gap : gap + 8] = text[:8]
        add(f"random/{i}", "random", "random", ("discovery", "confirmation")[i % 2], [text], gap)
    windows.sort(key=lambda entry: entry[0])
    return Reading(units=tuple(units), windows=tuple(window for _, window in windows))
