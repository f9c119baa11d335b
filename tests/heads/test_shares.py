"""Studies that label one after the other keep to one rate of false labels together."""

import numpy as np
import pytest

from innerworks.heads.shares import SHARES, study_q


def test_the_shares_add_up_to_one() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


def test_where_nothing_is_there_at_most_one_chapter_in_twenty_has_a_label() -> None:
    random, chapters = np.random.default_rng(0), 4000
    wrong = 0
    for _ in range(chapters):
        tables = {study: {str(family): random.random(8) for family in range(3)} for study in SHARES}
        wrong += any((q <= 0.05).any() for study, p in tables.items() for q in study_q(study, p).values())
    assert wrong / chapters < 0.06


def test_a_q_is_stated_over_the_share() -> None:
    assert study_q("seen", {"a": np.array([0.008])})["a"] == pytest.approx([0.02])
    assert study_q("domains", {"a": np.array([0.008])})["a"] == pytest.approx([0.08])
