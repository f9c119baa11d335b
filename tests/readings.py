"""Readings made of token ids, words and marks, without a tokenizer; documents of different lengths, some of several windows."""

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


@pytest.fixture(scope="session")
def spell() -> Callable[..., tuple[tuple[int | None, ...], tuple[str | None, ...]]]:
    """`spell(random, 30)`: words and kinds of 30 tokens."""
    return _spelled


def _spelled(random: np.random.Generator, length: int) -> tuple[tuple[int | None, ...], tuple[str | None, ...]]:
    """Words and kinds of so many tokens: words of letters and of digits, of one piece or several, marks and blanks."""
    words: list[int | None] = []
    kinds: list[str | None] = []
    for word in range(length):
        kind = (*["letter"] * 6, "digit", "other", "other", None)[random.integers(10)]
        pieces = (1, 1, 2, 3, 11)[random.integers(5)] if kind in ("letter", "digit") else 1
        words += [word if kind else None] * pieces
        kinds += [kind] * pieces
    return tuple(words[:length]), tuple(kinds[:length])


def _reading(*, documents: int = 12, sequences: int = 8, shortest: int = 9, longest: int = 40, seed: int = 0) -> Reading:
    random, spelling = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    units: list[Unit] = []
    windows: list[tuple[int, Window]] = []

    def add(id: str, stratum: str, material: str, half: str, texts: list[np.ndarray], alike: int | None) -> None:
        number = len(units)
        units.append(Unit(id=id, stratum=stratum, material=material, half=half))  # type: ignore[arg-type]
        for rank, text in enumerate(texts):
            tokens = tuple(int(token) for token in text)
            nothing = (None,) * len(tokens)
            words, kinds = _spelled(spelling, len(tokens)) if material == "text" else (nothing, nothing)
            own = number if alike is None else alike
            one = Window(unit=number, tokens=tokens, words=words, kinds=kinds, alike=own)
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
