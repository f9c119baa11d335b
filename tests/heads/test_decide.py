"""Labels from invented tables of attention mass whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from innerworks.findings import COLUMNS as FINDING_COLUMNS
from innerworks.findings import Finding, frame
from innerworks.heads import decide
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.harms import judged
from innerworks.heads.kinds import KINDS, MEASURES

LAYERS, HEADS, DOMAINS, PER_DOMAIN = 4, 6, 10, 16


def table(
    *, planted: dict[tuple[str, int, int], float] | None = None, only: str | None = None, spread: float = 0.02, seed: int = 0
) -> HeadsByUnit:
    """Every mass .1 with noise; `planted` adds (measure, layer, head) -> effect, on one material or on both."""
    random = np.random.default_rng(seed)
    units = [
        (f"{d}/{i}", f"domain {d}", "text", ("discovery", "confirmation")[i % 2])
        for d in range(DOMAINS)
        for i in range(PER_DOMAIN)
    ]
    units += [(f"r/{i}", "random", "random", ("discovery", "confirmation")[i % 2]) for i in range(64)]
    mass = 0.1 + spread * random.normal(size=(len(units), len(MEASURES), LAYERS, HEADS))
    domains = 0.05 * random.normal(size=DOMAINS + 1)  # what differs between domains is in the mass and in its null
    mass += np.array([domains[-1 if u[2] == "random" else int(u[0].split("/")[0])] for u in units])[:, None, None, None]
    for (measure, layer, head), effect in (planted or {}).items():
        here = np.array([only in (None, u[2]) for u in units])
        mass[here, MEASURES.index(measure), layer, head] += effect
    rows = random.integers(5, 60, size=(len(units), len(MEASURES))).astype(np.float32)
    return HeadsByUnit.of((mass * rows[:, :, None, None]).astype(np.float32), rows, units)


def labels(found: list[Finding]) -> set[tuple[str, str]]:
    return {(one.behaviour, one.site) for one in found if one.rung}


def the(found: list[Finding], behaviour: str, site: str, material: str, measure: str = "attention") -> Finding:
    wanted = (behaviour, site, material, measure)
    (one,) = [f for f in found if (f.behaviour, f.site, f.material, f.measure) == wanted]
    return one


PLANTED = {
    ("offset_1", 0, 1): 0.4,
    ("offset_1", 2, 3): 0.3,
    ("offset_0", 1, 0): 0.3,
    ("offset_3", 1, 5): 0.25,
    ("column_0", 3, 0): 0.7,
    ("duplicate", 2, 2): 0.25,
    ("induction", 3, 4): 0.3,
    ("induction", 3, 5): 0.2,
    ("join", 1, 3): 0.3,
    ("punctuation", 0, 4): 0.3,
}
TRUTH = {
    ("previous_token", "L0H1"),
    ("previous_token", "L2H3"),
    ("current_token", "L1H0"),
    ("offset_3", "L1H5"),
    ("first_token", "L3H0"),
    ("duplicate_token", "L2H2"),
    ("induction", "L3H4"),
    ("induction", "L3H5"),
    ("subword_joiner", "L1H3"),
    ("punctuation", "L0H4"),
}
ON_BOTH = {key: effect for key, effect in PLANTED.items() if key[0] not in ("column_0", "join", "punctuation")}


def test_exactly_what_was_planted_is_labelled() -> None:
    for seed in range(3):
        assert labels(decide.findings(table(planted=PLANTED, seed=seed))) == TRUTH


def test_noise_alone_is_never_labelled() -> None:
    for seed in range(10):
        assert labels(decide.findings(table(spread=0.05, seed=seed))) == set()


def test_effects_below_the_floor_are_not_labelled_however_certain() -> None:
    small = {("duplicate", 0, 0): 0.015, ("induction", 1, 1): 0.09, ("column_0", 2, 2): 0.25, ("offset_1", 3, 3): 0.045}
    found = decide.findings(table(planted=small, spread=0.001))
    assert labels(found) == set()
    one = the(found, "duplicate_token", "L0H0", "text")
    assert one.effect == pytest.approx(0.015, abs=0.002) and one.effect_low > 0.01 and one.p == pytest.approx(1.0)


@pytest.mark.parametrize("only", ["text", "random"])
def test_both_materials_must_pass(only: str) -> None:
    found = decide.findings(table(planted=ON_BOTH, only=only))
    assert labels(found) == set()
    one = the(found, "induction", "L3H4", only)
    assert one.p is not None and one.p < 1e-6 and one.q is None  # passes there, and yet is no candidate


def test_candidates_must_pass_on_both_materials_too() -> None:
    both, text = table(planted=PLANTED), table(planted=PLANTED, only="text")
    assert decide.candidates(both, KINDS["induction"])[3].tolist() == [False] * 4 + [True, True]
    assert not decide.candidates(text, KINDS["induction"]).any()


def test_the_p_of_a_label_is_the_larger_one_and_q_that_of_the_whole_chapter() -> None:
    from innerworks.stats import family_q

    t = table(planted=PLANTED, spread=0.15)
    found = decide.findings(t)
    p_of = {}
    for kind in KINDS.values():
        picked = decide.candidates(t, kind)
        sites = [f"L{layer}H{head}" for layer, head in np.argwhere(picked)]
        p_of[kind.behaviour] = np.array(
            [max(f.p or 0.0 for f in found if (f.behaviour, f.site) == (kind.behaviour, site)) for site in sites]
        )
        untested = [f for f in found if f.behaviour == kind.behaviour and f.site not in sites]
        assert all(f.q is None and f.rung == 0 for f in untested)
    q_of = family_q(p_of)
    for kind in KINDS.values():
        for test in {(f.material, f.measure) for f in found if f.behaviour == kind.behaviour}:
            rows = [f for f in found if f.behaviour == kind.behaviour and (f.material, f.measure) == test]
            np.testing.assert_allclose([f.q for f in rows if f.q is not None], q_of[kind.behaviour])
    assert sum(map(len, p_of.values())) >= 8


def test_an_effect_is_own_mass_minus_null_with_the_interval_over_documents() -> None:
    t = table(planted=PLANTED)
    found = the(decide.findings(t), "induction", "L3H4", "random")
    units = (t.materials == "random") & (t.halves == "confirmation")
    own = t.mass[units, MEASURES.index("induction"), 3, 4]
    swapped = t.mass[units, MEASURES.index("induction_swapped"), 3, 4]
    effect = own - swapped
    low, high = scipy_stats.t.interval(0.95, 31, effect.mean(), scipy_stats.sem(effect))
    assert (found.value, found.null, found.n) == (pytest.approx(own.mean()), pytest.approx(swapped.mean()), 32)
    assert (found.effect, found.effect_low, found.effect_high) == tuple(pytest.approx(x) for x in (effect.mean(), low, high))
    assert found.p == pytest.approx(scipy_stats.ttest_1samp(effect, 0.10, alternative="greater").pvalue)
    assert found.half == "confirmation" and found.null_kind == "pattern swap" and found.floor == 0.10


def test_the_floors_are_those_of_the_written_statistics() -> None:
    floors = {kind.behaviour: dict(kind.floors) for kind in KINDS.values()}
    offsets = dict.fromkeys(("current_token", "previous_token", "offset_2", "offset_3"), {"text": 0.05, "random": 0.10})
    content = dict.fromkeys(("duplicate_token", "induction"), {"text": 0.02, "random": 0.10})
    textual = {"subword_joiner": {"text": 0.10}, "punctuation": {"text": 0.10}}
    assert floors == {**offsets, **content, **textual, "first_token": {"text": 0.30}}
    nulls = {kind.null for kind in KINDS.values() if kind.behaviour in offsets}
    assert nulls == {"other offset"} and KINDS["first_token"].null == "other column"
    assert {KINDS[behaviour].null for behaviour in (*content, *textual)} == {"pattern swap"}
    assert {kind.behaviour: kind.also for kind in KINDS.values() if kind.also} == {"subword_joiner": "across words"}
    tested = {*offsets, *content, "subword_joiner"}  # all but sinks, and punctuation, which is one
    assert {behaviour for behaviour in KINDS if judged(behaviour)} == tested


def test_a_joiner_must_beat_both_of_its_nulls() -> None:
    planted = {
        **{("join", 0, head): 0.4 for head in range(5)},
        ("join_across", 0, 0): 0.4,  # looks back as far whatever stands there
        ("join_swapped", 0, 1): 0.4,  # looks at these places in any text
        ("join_across", 0, 2): 0.32,  # does so more within words, but by less than the floor
        ("join_across", 0, 3): 0.2,
    }
    t = table(planted=planted)
    found = decide.findings(t)
    assert labels(found) == {("subword_joiner", "L0H3"), ("subword_joiner", "L0H4")}
    assert decide.candidates(t, KINDS["subword_joiner"])[0].tolist() == [False, False, False, True, True, False]
    for site, failed in (("L0H0", "attention_across"), ("L0H1", "attention"), ("L0H2", "attention_across")):
        for measure in ("attention", "attention_across"):
            one = the(found, "subword_joiner", site, "text", measure)
            assert one.p is not None and (one.p > 0.5 if measure == failed else one.p < 1e-6), (site, measure)
    across = the(found, "subword_joiner", "L0H3", "text", "attention_across")
    here = (t.halves == "confirmation") & (t.materials == "text")
    own, null = (t.mass[here, MEASURES.index(name), 0, 3] for name in ("join", "join_across"))
    assert (across.value, across.null) == (pytest.approx(own.mean()), pytest.approx(null.mean()))
    assert across.effect == pytest.approx((own - null).mean()) and across.null_kind == "across words" and across.floor == 0.10
    assert the(found, "subword_joiner", "L0H3", "text").null_kind == "pattern swap" and across.rung == 1


def test_a_joiner_good_against_one_null_on_confirmation_is_not_labelled() -> None:
    t = table(planted={("join", 2, 2): 0.4})
    t.mass[t.halves == "confirmation", MEASURES.index("join_across"), 2, 2] += 0.4
    assert decide.candidates(t, KINDS["subword_joiner"])[2, 2]
    found = the(decide.findings(t), "subword_joiner", "L2H2", "text")
    assert found.rung == 0 and found.p is not None and found.p < 1e-6 and found.q is not None and found.q > 0.05


def test_documents_without_rows_across_words_leave_that_test_alone() -> None:
    t = table(planted={("join", 2, 2): 0.4})
    rows, total = t.rows.copy(), t.total.copy()
    empty = np.flatnonzero((t.materials == "text") & (t.halves == "confirmation"))[:30]
    rows[empty, MEASURES.index("join_across")] = total[empty, MEASURES.index("join_across")] = 0
    units = [tuple(map(str, unit)) for unit in zip(t.ids, t.strata, t.materials, t.halves, strict=True)]
    found = decide.findings(HeadsByUnit.of(total, rows, units))
    assert the(found, "subword_joiner", "L2H2", "text").n == 80
    assert the(found, "subword_joiner", "L2H2", "text", "attention_across").n == 50
    assert ("subword_joiner", "L2H2") in labels(found)


def test_an_offset_must_beat_the_best_other_offset_of_its_head() -> None:
    planted = {("offset_1", 0, 0): 0.4, ("offset_5", 0, 0): 0.4, ("offset_1", 0, 1): 0.4}
    found = decide.findings(table(planted=planted))
    assert labels(found) == {("previous_token", "L0H1")}
    assert the(found, "previous_token", "L0H0", "text").null == pytest.approx(0.5, abs=0.1)


def test_the_other_offset_is_chosen_on_discovery_and_the_null_is_its_mass_on_confirmation() -> None:
    t = table()
    confirmation = t.halves == "confirmation"
    t.mass[~confirmation, MEASURES.index("offset_4"), 0, 0] += 0.1
    t.mass[confirmation, MEASURES.index("offset_7"), 0, 0] += 0.3  # better, but only where it must not be looked for
    found = the(decide.findings(t), "previous_token", "L0H0", "text")
    here = confirmation & (t.materials == "text")
    assert found.null == pytest.approx(t.mass[here, MEASURES.index("offset_4"), 0, 0].mean())


def test_the_column_that_a_sink_must_beat_is_never_column_0_and_chosen_on_discovery() -> None:
    t = table(planted={("column_0", 0, 0): 0.6, ("column_6", 0, 0): 0.2})
    found = the(decide.findings(t), "first_token", "L0H0", "text")
    here = (t.halves == "confirmation") & (t.materials == "text")
    assert found.null == pytest.approx(t.mass[here, MEASURES.index("column_6"), 0, 0].mean())


def test_confirmation_changes_neither_candidates_nor_the_choice_of_the_null() -> None:
    t = table(planted=PLANTED, spread=0.1)
    random = np.random.default_rng(1)
    other = replace(t, mass=np.where((t.halves == "confirmation")[:, None, None, None], random.random(t.mass.shape), t.mass))
    for kind in KINDS.values():
        np.testing.assert_array_equal(decide.candidates(t, kind), decide.candidates(other, kind))
        for material in kind.floors:
            before, after = (decide.effect(x, kind, material, "discovery") for x in (t, other))
            np.testing.assert_array_equal(before.null, after.null)


def test_discovery_changes_no_effect_but_through_the_null_it_chose() -> None:
    t = table(planted=PLANTED)
    halves = (t.halves == "discovery")[:, None, None, None]
    other = replace(t, mass=np.where(halves, t.mass * 1.5, t.mass))
    for kind in KINDS.values():
        for material in kind.floors:
            before, after = (decide.effect(x, kind, material, "confirmation").estimate for x in (t, other))
            np.testing.assert_array_equal(before.mean, after.mean)


def test_a_head_good_on_discovery_alone_is_not_labelled() -> None:
    t = table()
    t.mass[t.halves == "discovery", MEASURES.index("induction"), 2, 2] += 0.5
    assert decide.candidates(t, KINDS["induction"])[2, 2]
    found = the(decide.findings(t), "induction", "L2H2", "text")
    assert found.rung == 0 and found.q is not None and found.q > 0.05


def test_units_without_a_row_for_the_measure_do_not_count() -> None:
    t = table(planted=PLANTED)
    rows, total = t.rows.copy(), t.total.copy()
    empty = np.flatnonzero((t.materials == "text") & (t.halves == "confirmation"))[:30]
    for name in ("induction", "induction_swapped"):
        rows[empty, MEASURES.index(name)] = total[empty, MEASURES.index(name)] = 0
    units = list(zip(t.ids, t.strata, t.materials, t.halves, strict=True))
    found = decide.findings(HeadsByUnit.of(total, rows, [tuple(map(str, unit)) for unit in units]))
    assert the(found, "induction", "L3H4", "text").n == 50 and the(found, "duplicate_token", "L3H4", "text").n == 80
    assert ("induction", "L3H4") in labels(found)


def test_a_kind_without_a_single_row_is_not_decided_and_says_so() -> None:
    t = table(planted=PLANTED)
    rows, total = t.rows.copy(), t.total.copy()
    for m, name in enumerate(MEASURES):
        if not name.startswith("duplicate"):  # documents shorter than 17 tokens, in which no copy is followed by anything
            rows[:, m] = total[:, m] = 0
    units = [tuple(map(str, unit)) for unit in zip(t.ids, t.strata, t.materials, t.halves, strict=True)]
    found = decide.findings(HeadsByUnit.of(total, rows, units))
    assert labels(found) == {("duplicate_token", "L2H2")}
    for behaviour in ("induction", "previous_token", "first_token"):
        assert the(found, behaviour, "L3H4", "text").note == "only 0 units: not decided"
    for measure in ("attention", "attention_across"):
        assert the(found, "subword_joiner", "L1H3", "text", measure).note == "only 0 units: not decided"


def test_there_is_one_row_per_kind_material_null_and_head_and_the_table_takes_them() -> None:
    found = decide.findings(table(planted=PLANTED))
    assert len(found) == (4 * 2 + 2 * 2 + 1 + 1 + 2) * LAYERS * HEADS  # a joiner's for each of its nulls
    rows = frame(found)
    assert rows.columns == list(FINDING_COLUMNS) and rows.height == len(found)
    assert rows["q"].null_count() > 0 and not rows["effect"].is_nan().any()
