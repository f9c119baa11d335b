"""Rungs 2 and 3 on invented ablations: which heads are needed is known, alone or only together."""

from collections.abc import Iterable

import numpy as np
import pytest

from innerworks.findings import Finding
from innerworks.heads import effect
from innerworks.heads.ablation import METRICS, Head
from innerworks.heads.effect import Bench, Effort, climb, control_groups, harm_of, labels_of, matched, tried
from innerworks.stats import adjust

LAYERS, HEADS, UNITS = 6, 8, 24
STANDARD = Effort(candidates=None, shared_controls=False, joint=True, units={}, text_tokens=80)
QUICK = Effort(candidates=10, shared_controls=True, joint=False, units={}, text_tokens=80)
NEEDED, LEFT, RIGHT, IDLE, CLUMSY = (2, 1), (2, 3), (3, 3), (3, 5), (4, 0)
EVEN = {material: np.ones((LAYERS, HEADS)) for material in ("text", "random")}


class Model:
    """Ablations with a known truth: NEEDED is needed, LEFT and RIGHT back each other up, IDLE does nothing."""

    def __init__(self, *, seed: int = 0, noise: float = 0.003) -> None:
        random = np.random.default_rng(seed)
        self.base = {metric: 2 + random.random(UNITS) for metric in METRICS}
        self.small = {m: noise * random.normal(size=(LAYERS, HEADS, UNITS)) for m in METRICS}
        self.varying = 1 + 0.1 * random.normal(size=(3, UNITS))
        self.asked: list[tuple[frozenset[Head], str]] = []

    def without(self, heads: Iterable[Head], metric: str) -> np.ndarray:
        heads = frozenset(heads)
        self.asked.append((heads, metric))
        result = self.base[metric] + sum((self.small[metric][head] for head in heads), np.zeros(UNITS))
        here = {"second_copy_loss": 1.0, "repeated_loss": 0.8, "induction_match": -0.2}.get(metric, 0.0)
        result = result + here * 0.5 * self.varying[0] * (NEEDED in heads)
        result = result + here * 0.6 * self.varying[1] * (LEFT in heads and RIGHT in heads)
        return result + (here + (metric in ("unmatched_loss", "fresh_loss"))) * 0.4 * self.varying[2] * (CLUMSY in heads)

    def bench(self) -> Bench:
        return Bench(without=self.without, strata={"text": ["a"] * UNITS, "random": ["r"] * UNITS})


def seen(behaviour: str, head: Head, effect: float = 0.4, *, rung: int = 1, material: str = "random") -> Finding:
    return Finding(
        chapter="heads",
        behaviour=behaviour,
        site=f"L{head[0]}H{head[1]}",
        layer=head[0],
        index=head[1],
        measure="attention",
        material=material,
        value=effect,
        unit="probability",
        effect=effect,
        effect_low=effect,
        effect_high=effect,
        n=30,
        null=0.0,
        null_kind="pattern swap",
        floor=0.1,
        p=0.0,
        mde=0.1,
        q=0.0 if rung else None,
        rung=rung,
    )


def climbed(
    behaviour: str, heads: list[Head], *, effort: Effort = STANDARD, model: Model | None = None, others: tuple[Finding, ...] = ()
) -> dict[str, tuple[int, str]]:
    """Site -> (rung, note) after the climb."""
    rows = [seen(behaviour, head, 0.8 - 0.05 * i) for i, head in enumerate(heads)] + list(others)
    picked = {kind: {(f.layer or 0, f.index or 0) for f in rows if f.behaviour == kind} for kind in ("induction", "duplicate_token")}
    picked = {"previous_token": set(), **picked}
    picked[behaviour] = set(heads)
    found = climb(rows, picked, EVEN, (model or Model()).bench(), effort, 0)
    return {f.site: (f.rung, f.note) for f in found if f.measure == "attention" and f.behaviour == behaviour}


# --- the truth is found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["induction", "duplicate_token", "previous_token"])
def test_a_head_needed_alone_and_one_that_is_not_are_told_apart(behaviour: str) -> None:
    for seed in range(3):
        found = climbed(behaviour, [NEEDED, IDLE], model=Model(seed=seed))
        assert found["L2H1"] == (3, "alone")
        assert found["L3H5"] == (1, "rung 2 tried, not shown")


def test_heads_that_back_each_other_up_are_needed_jointly() -> None:
    for seed in range(3):
        found = climbed("induction", [NEEDED, LEFT, RIGHT, IDLE], model=Model(seed=seed))
        assert found == {
            "L2H1": (3, "alone"),
            "L2H3": (3, "jointly"),
            "L3H3": (3, "jointly"),
            "L3H5": (1, "rung 2 tried, not shown"),
        }


def test_without_joint_tries_backup_hides_them() -> None:
    found = climbed("induction", [LEFT, RIGHT], effort=QUICK)
    assert {rung for rung, _ in found.values()} == {1}


def test_harm_everywhere_is_necessary_but_not_selective() -> None:
    found = climbed("induction", [CLUMSY, IDLE])
    rung, note = found["L4H0"]
    assert rung == 2 and note.startswith("alone; rung 3 fails: harm elsewhere 0.4")


def test_a_previous_token_head_is_judged_by_the_match_of_induction_heads_where_there_are_any() -> None:
    confirmed = harm_of("previous_token", induction_confirmed=True)
    assert confirmed.metric == "induction_match" and confirmed.falls and confirmed.nats == "second_copy_loss"
    alone = harm_of("previous_token", induction_confirmed=False)
    assert alone.metric == "second_copy_loss" and not alone.falls
    model = Model()
    found = climbed("previous_token", [NEEDED], model=model, others=(seen("induction", (5, 5)),))
    assert found["L2H1"] == (3, "alone")
    assert (frozenset([NEEDED]), "induction_match") in model.asked


def test_what_the_written_statistics_say_is_harmed_by_each_kind() -> None:
    metrics = {b: harm_of(b, induction_confirmed=False) for b in ("induction", "duplicate_token")}
    assert (metrics["induction"].metric, metrics["induction"].elsewhere) == ("second_copy_loss", "unmatched_loss")
    assert (metrics["duplicate_token"].metric, metrics["duplicate_token"].elsewhere) == ("repeated_loss", "fresh_loss")


def test_noise_never_climbs() -> None:
    for seed in range(10):
        model = Model(seed=seed, noise=0.05)
        found = climbed("induction", [IDLE, (2, 5), (3, 6), (1, 1)], model=model)
        assert {rung for rung, _ in found.values()} == {1}, seed


def test_kinds_without_rungs_2_and_3_stay_as_they_were() -> None:
    sink = seen("first_token", (1, 1))
    assert climb([sink], {}, EVEN, Model().bench(), STANDARD, 0) == [sink]


def test_heads_that_are_not_labelled_are_never_ablated_but_as_controls() -> None:
    model = Model()
    unlabelled = seen("induction", (3, 7), rung=0)
    rows = [seen("induction", NEEDED), unlabelled]
    found = climb(rows, {"induction": {NEEDED, (3, 7)}}, EVEN, model.bench(), STANDARD, 0)
    assert unlabelled in found and not any((3, 7) in heads for heads, _ in model.asked)


def test_nothing_labelled_ablates_nothing() -> None:
    model = Model()
    assert climb([seen("induction", (3, 7), rung=0)], {"induction": set()}, EVEN, model.bench(), STANDARD, 0)[0].rung == 0
    assert model.asked == []


# --- how it is counted -------------------------------------------------------------------------------------------


def test_benjamini_hochberg_counts_both_tries() -> None:
    heads = [NEEDED, LEFT, RIGHT, IDLE]
    rows = [seen("induction", head, 0.8 - 0.05 * i) for i, head in enumerate(heads)]
    found = climb(rows, {"induction": set(heads)}, EVEN, Model().bench(), STANDARD, 0)
    alone = {f.site: f for f in found if f.measure == "harm"}
    part = {f.site: f for f in found if f.measure == "marginal_harm"}
    group = {f.site: f for f in found if f.measure == "joint_harm"}
    assert set(alone) == {"L2H1", "L2H3", "L3H3", "L3H5"} and set(part) == set(group) == {"L2H3", "L3H3", "L3H5"}
    p = [f.p or 0.0 for f in alone.values()] + [max(part[site].p or 0.0, group[site].p or 0.0) for site in part]
    q = adjust(np.array(p))
    np.testing.assert_allclose([f.q for f in (*alone.values(), *part.values())], q)
    assert [group[site].q for site in part] == [part[site].q for site in part]


def test_a_joint_try_must_pass_as_a_group_and_by_its_own_part() -> None:
    heads = [LEFT, RIGHT, IDLE]
    rows = [seen("induction", head, 0.8 - 0.05 * i) for i, head in enumerate(heads)]
    found = climb(rows, {"induction": set(heads)}, EVEN, Model().bench(), STANDARD, 0)
    idle = {f.measure: f for f in found if f.site == "L3H5"}
    assert (idle["joint_harm"].p or 0.0) < 0.01 and (idle["marginal_harm"].p or 0.0) > 0.05 and idle["attention"].rung == 1


def test_harm_and_controls_are_what_the_ablations_say() -> None:
    model = Model()
    rows = [seen("induction", NEEDED)]
    found = climb(rows, {"induction": {NEEDED}}, EVEN, model.bench(), STANDARD, 0)
    (harm,) = [f for f in found if f.measure == "harm"]
    expected = model.without([NEEDED], "second_copy_loss") - model.without([], "second_copy_loss")
    controls, _ = matched([NEEDED], {NEEDED}, EVEN["random"])
    baseline = np.mean([model.without([c], "second_copy_loss") - model.without([], "second_copy_loss") for c in controls])
    assert harm.value == pytest.approx(expected.mean()) and harm.null == pytest.approx(baseline)
    assert harm.effect == pytest.approx(expected.mean() - baseline) and harm.floor == 0.02 and harm.ablation == "mean"
    (little,) = [f for f in found if f.measure == "collateral"]
    elsewhere = model.without([NEEDED], "unmatched_loss") - model.without([], "unmatched_loss")
    assert little.effect == pytest.approx(elsewhere.mean()) and little.material == "text"


def test_units_without_a_row_for_the_metric_do_not_count() -> None:
    model = Model()
    model.base["second_copy_loss"][[3, 9]] = np.nan
    found = climb([seen("induction", NEEDED)], {"induction": {NEEDED}}, EVEN, model.bench(), STANDARD, 0)
    (harm,) = [f for f in found if f.measure == "harm"]
    assert harm.n == UNITS - 2 and harm.q is not None and harm.q < 0.01


def test_the_climb_is_the_same_every_time() -> None:
    heads = [NEEDED, LEFT, RIGHT, IDLE]
    rows = [seen("induction", head, 0.8 - 0.05 * i) for i, head in enumerate(heads)]
    once, again = (climb(rows, {"induction": set(heads)}, EVEN, Model().bench(), STANDARD, 3) for _ in range(2))
    assert once == again


# --- labels and controls -----------------------------------------------------------------------------------------


def test_the_strength_of_a_label_is_that_of_its_weaker_material() -> None:
    rows = [seen("induction", (1, 1), 0.9), seen("induction", (1, 1), 0.2, material="text"), seen("induction", (1, 2), 0.5)]
    assert [(label.head, round(label.strength, 6)) for label in labels_of(rows)] == [((1, 2), 5.0), ((1, 1), 2.0)]


def test_few_tries_go_to_the_strongest_of_each_kind_in_turn() -> None:
    rows = [seen("induction", (1, i), 0.9 - 0.01 * i) for i in range(5)]
    rows += [seen("duplicate_token", (2, i), 0.4 - 0.01 * i) for i in range(5)]
    few = Effort(candidates=4, shared_controls=True, joint=False, units={}, text_tokens=8)
    chosen = [(label.behaviour, label.head) for label in tried(labels_of(rows), few)]
    assert chosen == [("induction", (1, 0)), ("duplicate_token", (2, 0)), ("induction", (1, 1)), ("duplicate_token", (2, 1))]


def test_controls_are_twenty_of_the_neighbouring_layers_nearest_in_what_is_removed() -> None:
    random = np.random.default_rng(0)
    removed = np.exp(random.normal(size=(9, 9)))
    candidates = {(4, 4), (4, 5), (3, 2)}
    chosen, _ = matched([(4, 4)], candidates, removed)
    pool = [(layer, head) for layer in (3, 4, 5) for head in range(9) if (layer, head) not in candidates]
    nearest = sorted(pool, key=lambda head: abs(np.log(removed[head] / removed[4, 4])))[:20]
    assert set(chosen) == set(nearest) and len(set(chosen)) == 20


def test_controls_come_from_further_away_only_where_there_are_too_few() -> None:
    removed = np.ones((8, 4))
    chosen, note = matched([(0, 1)], {(0, 1), (1, 0)}, removed)
    assert len(set(chosen)) == 20 and {layer for layer, _ in chosen} == set(range(6)) and note == ""
    assert (0, 1) not in chosen and (1, 0) not in chosen


def test_controls_unlike_the_head_are_noted() -> None:
    removed = np.ones((3, 9))
    removed[1, 1] = 5.0
    chosen, note = matched([(1, 1)], [(1, 1)], removed)
    assert len(chosen) == 20 and note == "20 of 20 controls differ more than twofold in removed norm"


def test_a_model_with_too_few_heads_is_filled_up_with_rotations_and_says_so() -> None:
    chosen, note = matched([(0, 0)], [(0, 0)], np.ones((3, 4)))
    heads, rotations = [one for one in chosen if len(one) == 2], [one for one in chosen if len(one) == 3]
    assert len(heads) == 11 and rotations == [(0, 0, draw) for draw in range(9)]
    assert note == "9 of 20 controls are rotations of what is removed, which flatter"


def test_control_groups_have_as_many_heads_in_each_layer_and_no_candidate() -> None:
    members, picked = frozenset([(2, 1), (2, 3), (3, 5)]), {(2, 1), (2, 3), (3, 5), (2, 0), (3, 0)}
    groups = control_groups(members, picked, HEADS, np.random.default_rng(0))
    assert len(groups) == len(set(groups)) == 20
    for group in groups:
        assert sorted(layer for layer, _ in group) == [2, 2, 3] and not group & picked


def test_no_groups_where_a_layer_is_full_of_candidates() -> None:
    full = {(2, head) for head in range(HEADS)}
    assert control_groups(frozenset([(2, 1)]), full, HEADS, np.random.default_rng(0)) == []


def test_only_the_eight_strongest_are_tried_jointly() -> None:
    model = Model()
    heads = [(layer, head) for layer in (1, 2, 3, 4, 5) for head in (2, 4)]
    climbed("induction", heads, model=model)
    strongest = frozenset(heads[:8])
    groups = {asked for asked, _ in model.asked if len(asked) == 8 and asked <= set(heads)}
    assert groups == {strongest}


def test_shared_controls_are_candidates_of_no_kind() -> None:
    model = Model()
    rows = [seen("induction", NEEDED), seen("duplicate_token", (3, 1))]
    picked = {"induction": {NEEDED, (2, 6)}, "duplicate_token": {(3, 1), (3, 6)}, "previous_token": {(1, 1)}}
    climb(rows, picked, EVEN, model.bench(), QUICK, 0)
    controls = {head for heads, _ in model.asked for head in heads} - {NEEDED, (3, 1)}
    assert len(controls) == 20 and not controls & set().union(*picked.values())


def test_own_controls_of_a_kind_are_none_of_its_candidates() -> None:
    for label in effect.with_controls(labels_of([seen("induction", NEEDED)]), {"induction": {NEEDED, LEFT, IDLE}}, EVEN, STANDARD):
        assert not {NEEDED, LEFT, IDLE} & set(label.controls) and len(set(label.controls)) == 20
