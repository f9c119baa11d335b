"""Planted patterns through the instrument and the decision: joiners and punctuation heads, and what only looks like them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from innerworks.findings import Finding
from innerworks.heads import seen
from innerworks.heads.patterns import Patterns, heads_by_unit
from innerworks.sites import Site
from innerworks.text import Reading
from innerworks.text.reading import Window

Row = dict[int, float]  # key -> mass; what is left rests on the first token


def pieces(text: Window, query: int) -> list[int]:
    """Earlier pieces of the query's word of letters, but the first token."""
    if text.kinds[query] != "letter":
        return []
    return [key for key in range(1, query) if text.words[key] == text.words[query]]


def spread(keys: list[int], mass: float) -> Row:
    return {key: mass / len(keys) for key in keys}


def nearest_piece(text: Window, query: int) -> Row:
    return spread(pieces(text, query)[-1:], 0.6)


def every_piece(text: Window, query: int) -> Row:
    return spread(pieces(text, query), 0.9)


def never_resting(text: Window, query: int) -> Row:
    """Joins, and looks at itself where there is nothing to join."""
    return {**spread(pieces(text, query), 0.6), **({} if pieces(text, query) else {query: 0.6})}


def one_back(text: Window, query: int) -> Row:
    return {query - 1: 0.7}


def one_back_a_little_more_in_words(text: Window, query: int) -> Row:
    return {query - 1: 0.5 + 0.07 * bool(pieces(text, query))}


def one_back_much_more_in_words(text: Window, query: int) -> Row:
    return {query - 1: 0.4 + 0.3 * bool(pieces(text, query))}


def local_window(text: Window, query: int) -> Row:
    return spread(list(range(max(1, query - 4), query)), 0.8)


def far_window(text: Window, query: int) -> Row:
    """From eight to ten tokens back, where only long words have pieces."""
    return spread(list(range(max(1, query - 10), max(1, query - 7))), 0.9)


def marks(text: Window, query: int) -> Row:
    return spread([key for key in range(1, query) if text.kinds[key] == "other"], 0.5)


def words_after_marks(text: Window, query: int) -> Row:
    """Looks at what follows punctuation, not at it."""
    return spread([key for key in range(2, query) if text.kinds[key - 1] == "other" != text.kinds[key]], 0.5)


PLANTED: dict[Callable[[Window, int], Row], set[str]] = {
    nearest_piece: {"subword_joiner"},
    every_piece: {"subword_joiner"},
    never_resting: {"subword_joiner"},
    one_back: set(),
    one_back_a_little_more_in_words: set(),
    one_back_much_more_in_words: {"subword_joiner"},
    local_window: set(),
    far_window: set(),
    marks: {"punctuation"},
    words_after_marks: set(),
}


@pytest.fixture(scope="module")
def found(make_reading: Any, tiny_model: Any) -> list[Finding]:
    """One layer whose head `i` has the `i`-th pattern."""
    reading: Reading = make_reading(documents=80, sequences=0, shortest=60, longest=90)
    windows = {(window.unit, window.tokens): window for window in reading.windows}
    one = Patterns()
    state = one.begin(replace(tiny_model("gpt2").anatomy, layers=1, heads=len(PLANTED)), reading)
    for half in ("discovery", "confirmation"):
        for batch in reading.batches(half):
            pattern = torch.zeros(len(batch.tokens), len(PLANTED), batch.tokens.shape[1], batch.tokens.shape[1])
            for row, (unit, mask) in enumerate(zip(batch.units.tolist(), batch.mask, strict=True)):
                text = windows[unit, tuple(batch.tokens[row][mask].tolist())]
                for head, looks in enumerate(PLANTED):
                    for query in range(1, len(text.tokens)):
                        for key, mass in looks(text, query).items():
                            pattern[row, head, query, key] = mass
            pattern[..., 0] += 1 - pattern.sum(dim=-1)
            one.begin_batch(batch)
            one.observe(state, batch, Site(layer=0, kind="pattern"), pattern, slice(0, None))
            one.end_batch(state, batch)
    return seen.findings(heads_by_unit(state, reading))


def of(found: list[Finding], looks: Callable[[Window, int], Row], behaviour: str) -> dict[str, Finding]:
    site = f"L0H{list(PLANTED).index(looks)}"
    return {one.measure: one for one in found if (one.site, one.behaviour, one.material) == (site, behaviour, "text")}


@pytest.mark.parametrize("looks", PLANTED, ids=lambda looks: looks.__name__)
def test_joiners_and_punctuation_heads_are_labelled_and_nothing_else_is(
    looks: Callable[[Window, int], Row], found: list[Finding]
) -> None:
    site = f"L0H{list(PLANTED).index(looks)}"
    given = {one.behaviour for one in found if one.site == site and one.rung}
    assert given & {"subword_joiner", "punctuation"} == PLANTED[looks]


def test_a_head_that_looks_one_back_everywhere_fails_across_words_alone(found: list[Finding]) -> None:
    one = of(found, one_back, "subword_joiner")
    assert one["attention"].p is not None and one["attention"].p > 0.5  # places are the same in any text
    assert one["attention_across"].effect == pytest.approx(0, abs=0.01) and one["attention_across"].p == 1.0


def test_a_head_that_looks_back_more_within_words_must_do_so_by_the_floor(found: list[Finding]) -> None:
    little, much = (
        of(found, looks, "subword_joiner")["attention_across"]
        for looks in (one_back_a_little_more_in_words, one_back_much_more_in_words)
    )
    assert little.effect == pytest.approx(0.07, abs=0.01) and little.effect_low > 0
    assert much.effect == pytest.approx(0.30, abs=0.01) and much.rung == 1


def test_windows_that_reach_over_words_have_no_effect_across_words_however_long_words_are(found: list[Finding]) -> None:
    for looks in (local_window, far_window):
        one = of(found, looks, "subword_joiner")["attention_across"]
        assert one.value > 0.02 and one.effect == pytest.approx(0, abs=0.02), (
            looks.__name__
        )  # the first rows have less before them


def test_the_sink_of_a_joiner_gives_way_where_it_joins_unless_it_rests_elsewhere(found: list[Finding]) -> None:
    for looks, contrast in ((nearest_piece, 0.6), (every_piece, 0.9), (never_resting, 0.0)):
        one = of(found, looks, "attention_sink")["sink_contrast"]
        assert one.target == "subword_joiner" and one.effect == pytest.approx(contrast, abs=1e-5)
        assert one.q is not None and (one.q <= 0.05) == (contrast > 0)
    assert not of(found, one_back, "attention_sink")  # no label, nothing to ask


def test_how_far_a_joiner_looks_is_said_of_labels_alone(found: list[Finding]) -> None:
    near, far = (of(found, looks, "subword_joiner")["attention_far"] for looks in (nearest_piece, every_piece))
    assert near.value == 0 and near.effect <= 0
    assert far.effect > 0.3 and far.q is not None and far.q <= 0.05 and near.q == 1.0 and {near.rung, far.rung} == {0}
    assert "attention_far" not in of(found, one_back, "subword_joiner")
