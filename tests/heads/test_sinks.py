"""Where labelled heads rest: a contrast is found where it was planted, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from innerworks.findings import Finding, frame
from innerworks.heads import decide, seen, sinks
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import MEASURES
from innerworks.stats import adjust

LAYERS, HEADS, DOCUMENTS = 2, 6, 160
LABELS = {("duplicate", 0, 0): 0.3, ("induction", 0, 1): 0.4, ("join", 1, 2): 0.4, ("offset_1", 1, 3): 0.5}


def table(planted: dict[tuple[str, int, int], float], seed: int = 0) -> HeadsByUnit:
    """Heads of four kinds, every mass .2 with noise; `planted` adds (measure, layer, head) -> effect."""
    random = np.random.default_rng(seed)
    units = [(f"d/{i}", f"domain {i % 8}", "text", ("discovery", "confirmation")[i // 8 % 2]) for i in range(DOCUMENTS)]
    units += [(f"r/{i}", "random", "random", ("discovery", "confirmation")[i % 2]) for i in range(64)]
    mass = 0.2 + 0.04 * random.normal(size=(len(units), len(MEASURES), LAYERS, HEADS))
    for (measure, layer, head), effect in {**LABELS, **planted}.items():
        mass[:, MEASURES.index(measure), layer, head] += effect
    rows = np.full((len(units), len(MEASURES)), 10, dtype=np.float32)
    return HeadsByUnit.of((mass * 10).astype(np.float32), rows, units)


def without_rows(t: HeadsByUnit, units: np.ndarray, *measures: str) -> HeadsByUnit:
    rows, total = t.rows.copy(), t.total.copy()
    for measure in measures:
        rows[units, MEASURES.index(measure)] = total[units, MEASURES.index(measure)] = 0
    return HeadsByUnit.of(total, rows, [tuple(map(str, u)) for u in zip(t.ids, t.strata, t.materials, t.halves, strict=True)])


def contrasts(t: HeadsByUnit) -> dict[tuple[str | None, str], Finding]:
    return {(one.target, one.site): one for one in seen.findings(t) if one.behaviour == "attention_sink"}


def test_a_contrast_is_found_where_it_was_planted_and_not_where_there_is_none() -> None:
    for seed in range(3):
        planted = {("sink_off_duplicate", 0, 0): 0.3, ("sink_off_join", 1, 2): 0.15, ("sink_at_induction", 0, 1): 0.3}
        found = contrasts(table(planted, seed))
        assert set(found) == {("duplicate_token", "L0H0"), ("induction", "L0H1"), ("subword_joiner", "L1H2")}
        gives_way = {site for (_, site), one in found.items() if one.q is not None and one.q <= 0.05}
        assert gives_way == {"L0H0", "L1H2"}
        assert found["induction", "L0H1"].effect == pytest.approx(-0.3, abs=0.03)  # it rests where it should work: no contrast


def test_only_labels_of_kinds_that_need_something_to_look_at_are_asked() -> None:
    unlabelled = {("sink_off_duplicate", 1, 5): 0.4, ("sink_off_induction", 1, 3): 0.4}  # no label; a previous-token head
    assert {site for _, site in contrasts(table(unlabelled))} == {"L0H0", "L0H1", "L1H2"}
    assert {"L1H3"} == {one.site for one in seen.findings(table({})) if one.rung and one.behaviour == "previous_token"}


def test_a_contrast_is_no_label_and_the_labels_are_those_of_the_kinds() -> None:
    t = table({("sink_off_duplicate", 0, 0): 0.3})
    rows = seen.findings(t)
    labels = decide.findings(t)
    assert [one for one in rows if one.rung] == [one for one in labels if one.rung]
    assert all(one in rows for one in labels)
    assert {one.measure for one in rows if one.behaviour == "attention_sink"} == {"sink_contrast"}


def test_a_contrast_below_the_floor_is_not_found_however_certain() -> None:
    t = table({("sink_off_duplicate", 0, 0): 0.04})
    one = contrasts(replace(t, mass=np.round(t.mass, 2)))["duplicate_token", "L0H0"]
    assert one.effect_low > 0.02 and one.effect_high < 0.06 and one.q is not None and one.q > 0.5 and one.floor == 0.10


def test_it_is_the_difference_over_confirmation_documents_that_have_both_sorts_of_row() -> None:
    t = table({("sink_off_duplicate", 0, 0): 0.08})
    here = (t.materials == "text") & (t.halves == "confirmation")
    lacking = np.flatnonzero(here)[:20]
    t = without_rows(without_rows(t, lacking[:12], "sink_off_duplicate"), lacking[8:], "sink_at_duplicate")
    found = contrasts(t)
    one, units = found["duplicate_token", "L0H0"], np.setdiff1d(np.flatnonzero(here), lacking)
    off, at = (t.mass[units, MEASURES.index(f"sink_{where}_duplicate"), 0, 0] for where in ("off", "at"))
    effect, groups = off - at, t.strata[units]
    if min(np.unique(groups, return_counts=True)[1]) < 8:
        se, df = scipy_stats.sem(effect), len(effect) - 1
    else:
        within = sum(((effect[groups == g] - effect[groups == g].mean()) ** 2).sum() for g in set(groups))
        df = len(effect) - len(set(groups))
        se = np.sqrt(within / df / len(effect))
    assert (one.n, one.df, one.value, one.null) == (60, df, pytest.approx(off.mean()), pytest.approx(at.mean()))
    assert one.effect == pytest.approx(effect.mean()) and one.null_kind == "rows where the kind applies"
    assert one.p == pytest.approx(scipy_stats.t.sf((effect.mean() - 0.10) / se, df))
    assert one.effect_low == pytest.approx(effect.mean() - scipy_stats.t.isf(0.025, df) * se)
    np.testing.assert_allclose([x.q for x in found.values()], adjust(np.array([x.p or 0.0 for x in found.values()])))


@pytest.mark.parametrize("left", [0, 1, 2, 11])
def test_without_documents_that_have_both_sorts_of_row_nothing_is_said_and_no_number_is_missing(left: int) -> None:
    t = table({("sink_off_duplicate", 0, 0): 0.3})
    here = np.flatnonzero((t.materials == "text") & (t.halves == "confirmation"))
    few = without_rows(t, here[left:], "sink_at_duplicate")
    found = contrasts(few)
    assert (("duplicate_token", "L0H0") in found) == (left > 1) and ("induction", "L0H1") in found
    numbers = frame(found.values()).select("value", "effect", "effect_low", "effect_high", "null", "p", "mde", "q")
    assert all(numbers[name].is_finite().all() and numbers[name].null_count() == 0 for name in numbers.columns)
    if left > 1:
        assert found["duplicate_token", "L0H0"].q == 1.0  # too few to decide on


def test_without_labels_there_is_nothing_to_ask() -> None:
    assert sinks.findings(table({}), []) == []
