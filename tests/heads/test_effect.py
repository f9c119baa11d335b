"""Rungs 2 and 3 on invented ablations: which heads are needed is known, alone or only together."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from innerworks.findings import Finding
from innerworks.heads.bench import Bench
from innerworks.heads.controls import control_groups, how_matched, matched
from innerworks.heads.effect import Effort, climb
from innerworks.heads.harms import HARMS, METRICS, Head, harm_of, judged
from innerworks.heads.labels import chosen, labels_of, suspects_of
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
        metric = metric.partition("@")[0]
        result = self.base[metric] + sum((self.small[metric][head] for head in heads), np.zeros(UNITS))
        here = {"second_copy_loss": 1.0, "repeated_loss": 0.8, "joined_loss": 0.6, "induction_match": -0.2}
        here = (here | {"agreement_difference": -0.9, "agreement_loss": 0.9}).get(metric, 0.0)
        result = result + here * 0.5 * self.varying[0] * (NEEDED in heads)
        result = result + here * 0.6 * self.varying[1] * (LEFT in heads and RIGHT in heads)
        return result + (here + (metric in ("unmatched_loss", "fresh_loss"))) * 0.4 * self.varying[2] * (CLUMSY in heads)

    def bench(self, suspects: Iterable[Head], watchers: Iterable[Head] = ()) -> Bench:
        strata = {"text": ["a"] * UNITS, "random": ["r"] * UNITS}
        return Bench(without=self.without, strata=strata, watchers=list(watchers), suspects=set(suspects), removed=EVEN)


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
    heads_of = {kind: [(f.layer or 0, f.index or 0) for f in rows if f.behaviour == kind] for kind in ("induction", behaviour)}
    suspects = {head for some in heads_of.values() for head in some}
    found = climb(rows, (model or Model()).bench(suspects, heads_of["induction"]), effort, 0)
    return {f.site: (f.rung, f.note) for f in found if f.measure == "attention" and f.behaviour == behaviour}


# --- the truth is found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["induction", "duplicate_token", "previous_token", "subword_joiner"])
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
    harm = float(note.partition("harm elsewhere ")[2].split()[0])
    assert rung == 2 and note.startswith("alone; rung 3 fails") and harm == pytest.approx(0.4, abs=0.03)


def test_a_previous_token_head_is_judged_by_the_match_of_the_induction_heads_above_it() -> None:
    below, above = (harm_of("previous_token", layer, [(5, 5), (3, 1)]) for layer in (4, 5))
    assert below.metric == "induction_match@4" and below.falls and below.nats == "second_copy_loss"
    assert above.metric == "second_copy_loss" and not above.falls and above.elsewhere == "unmatched_loss"
    assert harm_of("previous_token", 0, []).metric == "second_copy_loss"
    model = Model()
    found = climbed("previous_token", [NEEDED], model=model, others=(seen("induction", (5, 5)),))
    assert found["L2H1"] == (3, "alone")
    judged = {heads for heads, metric in model.asked if metric == "induction_match@2"}
    assert frozenset([NEEDED]) in judged
    assert max(layer for heads in judged for layer, *_ in heads) <= 2  # a control above it could not touch what it reads


def test_what_the_written_statistics_say_is_harmed_by_each_kind() -> None:
    metrics = {b: harm_of(b, 1, [(3, 3)]) for b in ("induction", "duplicate_token", "subword_joiner")}
    joiner = metrics["subword_joiner"]
    assert (joiner.metric, joiner.nats, joiner.elsewhere, joiner.falls) == ("joined_loss", "joined_loss", "single_loss", False)
    assert (metrics["induction"].metric, metrics["induction"].elsewhere) == ("second_copy_loss", "unmatched_loss")
    assert (metrics["duplicate_token"].metric, metrics["duplicate_token"].elsewhere) == ("repeated_loss", "fresh_loss")


def test_noise_never_climbs() -> None:
    for seed in range(10):
        model = Model(seed=seed, noise=0.05)
        found = climbed("induction", [IDLE, (2, 5), (3, 6), (1, 1)], model=model)
        assert {rung for rung, _ in found.values()} == {1}, seed


def test_kinds_without_rungs_2_and_3_stay_as_they_were() -> None:
    sink = seen("first_token", (1, 1))
    assert climb([sink], Model().bench([]), STANDARD, 0) == [sink]


def test_heads_that_are_not_labelled_are_never_ablated_but_as_controls() -> None:
    model = Model()
    unlabelled = seen("induction", (3, 7), rung=0)
    rows = [seen("induction", NEEDED), unlabelled]
    found = climb(rows, model.bench([NEEDED, (3, 7)]), STANDARD, 0)
    assert unlabelled in found and not any((3, 7) in heads for heads, _ in model.asked)


def test_nothing_labelled_ablates_nothing() -> None:
    model = Model()
    assert climb([seen("induction", (3, 7), rung=0)], model.bench([]), STANDARD, 0)[0].rung == 0
    assert model.asked == []


# --- how it is counted -------------------------------------------------------------------------------------------


def test_benjamini_hochberg_counts_both_tries() -> None:
    heads = [NEEDED, LEFT, RIGHT, IDLE]
    rows = [seen("induction", head, 0.8 - 0.05 * i) for i, head in enumerate(heads)]
    found = climb(rows, Model().bench(heads), STANDARD, 0)
    alone = {f.site: f for f in found if f.measure == "harm"}
    part = {f.site: f for f in found if f.measure == "marginal_harm"}
    group = {f.site: f for f in found if f.measure == "joint_harm"}
    assert set(alone) == {"L2H1", "L2H3", "L3H3", "L3H5"} and set(part) == set(group) == {"L2H3", "L3H3", "L3H5"}
    p = [f.p or 0.0 for f in alone.values()] + [max(part[site].p or 0.0, group[site].p or 0.0) for site in part]
    q = adjust(np.array(p))
    np.testing.assert_allclose([f.q for f in (*alone.values(), *part.values())], q)


def test_a_joint_try_must_pass_as_a_group_and_by_its_own_part() -> None:
    heads = [LEFT, RIGHT, IDLE]
    rows = [seen("induction", head, 0.8 - 0.05 * i) for i, head in enumerate(heads)]
    found = climb(rows, Model().bench(heads), STANDARD, 0)
    idle = {f.measure: f for f in found if f.site == "L3H5"}
    assert (idle["joint_harm"].p or 0.0) < 0.05 and (idle["marginal_harm"].p or 0.0) > 0.05 and idle["attention"].rung == 1


def test_harm_and_controls_are_what_the_ablations_say() -> None:
    model = Model()
    rows = [seen("induction", NEEDED)]
    found = climb(rows, model.bench([NEEDED]), STANDARD, 0)
    (harm,) = [f for f in found if f.measure == "harm"]
    expected = model.without([NEEDED], "second_copy_loss") - model.without([], "second_copy_loss")
    controls = matched([NEEDED], {NEEDED}, EVEN["random"])
    baseline = np.mean([model.without([c], "second_copy_loss") - model.without([], "second_copy_loss") for c in controls])
    assert harm.value == pytest.approx(expected.mean()) and harm.null == pytest.approx(baseline)
    assert harm.effect == pytest.approx(expected.mean() - baseline) and harm.floor == 0.02 and harm.ablation == "mean"
    (little,) = [f for f in found if f.measure == "collateral"]
    elsewhere = model.without([NEEDED], "unmatched_loss") - model.without([], "unmatched_loss")
    assert little.effect == pytest.approx(elsewhere.mean()) and little.material == "text"


def test_units_without_the_metric_count_neither_for_nor_against() -> None:
    model = Model()
    lacking, without_single = np.arange(8), np.arange(4, 12)
    model.base["joined_loss"][lacking] = model.base["single_loss"][without_single] = np.nan
    joiner = seen("subword_joiner", NEEDED, material="text")
    found = {f.measure: f for f in climb([joiner], model.bench([NEEDED]), STANDARD, 0)}
    harm = model.without([NEEDED], "joined_loss") - model.without([], "joined_loss")
    assert found["harm"].n == 16 and found["harm"].value == pytest.approx(np.nanmean(harm)) and found["attention"].rung == 3
    assert found["harm"].material == "text" and found["harm"].df == 15
    little = model.without([NEEDED], "single_loss") - model.without([], "single_loss")
    assert found["collateral"].n == 16 and found["collateral"].effect == pytest.approx(np.nanmean(little))


def test_a_metric_that_hardly_any_unit_has_is_not_decided() -> None:
    for left, note in ((5, "only 5 units: not decided"), (0, "")):
        model = Model()
        model.base["joined_loss"][left:] = np.nan
        found = {f.measure: f for f in climb([seen("subword_joiner", NEEDED)], model.bench([NEEDED]), STANDARD, 0)}
        assert found["attention"].rung == 1 and found["harm"].p == found["harm"].q == 1.0 and note in found["harm"].note


def test_a_joiner_is_one_label_whatever_its_nulls_and_what_only_follows_from_it_is_none() -> None:
    label = seen("subword_joiner", NEEDED, material="text")
    further = [replace(label, measure="attention_across"), replace(label, measure="attention_far", rung=0)]
    sink = replace(label, behaviour="attention_sink", measure="sink_contrast", target="subword_joiner", rung=0)
    assert [one.head for one in labels_of([label, *further, sink])] == [NEEDED]
    found = climb([label, *further, sink], Model().bench([NEEDED]), STANDARD, 0)
    rungs = {f.measure: f.rung for f in found if f.measure not in ("harm", "collateral")}
    assert rungs == {"attention": 3, "attention_across": 3, "attention_far": 0, "sink_contrast": 0}
    assert sum(f.measure == "harm" for f in found) == 1


def test_the_climb_is_the_same_every_time() -> None:
    heads = [NEEDED, LEFT, RIGHT, IDLE]
    rows = [seen("induction", head, 0.8 - 0.05 * i) for i, head in enumerate(heads)]
    once, again = (climb(rows, Model().bench(heads), STANDARD, 3) for _ in range(2))
    assert once == again


# --- labels and controls -----------------------------------------------------------------------------------------


def test_the_strength_of_a_label_is_that_of_its_weaker_material() -> None:
    rows = [seen("induction", (1, 1), 0.9), seen("induction", (1, 1), 0.2, material="text"), seen("induction", (1, 2), 0.5)]
    assert [(label.head, round(label.strength, 6)) for label in labels_of(rows)] == [((1, 2), 5.0), ((1, 1), 2.0)]


def test_few_tries_go_to_the_strongest_of_each_kind_in_turn() -> None:
    rows = [seen("induction", (1, i), 0.9 - 0.01 * i) for i in range(5)]
    rows += [seen("duplicate_token", (2, i), 0.4 - 0.01 * i) for i in range(5)]
    few = Effort(candidates=4, shared_controls=True, joint=False, units={}, text_tokens=8)
    first = [(label.behaviour, label.head) for label in chosen(labels_of(rows), most=few.candidates)]
    assert first == [("induction", (1, 0)), ("duplicate_token", (2, 0)), ("induction", (1, 1)), ("duplicate_token", (2, 1))]


def test_controls_are_twenty_of_the_neighbouring_layers_nearest_in_what_is_removed() -> None:
    random = np.random.default_rng(0)
    removed = np.exp(random.normal(size=(9, 9)))
    candidates = {(4, 4), (4, 5), (3, 2)}
    controls = matched([(4, 4)], candidates, removed)
    pool = [(layer, head) for layer in (3, 4, 5) for head in range(9) if (layer, head) not in candidates]
    nearest = sorted(pool, key=lambda head: abs(np.log(removed[head] / removed[4, 4])))[:20]
    assert set(controls) == set(nearest) and len(set(controls)) == 20


def test_controls_come_from_further_away_only_where_there_are_too_few() -> None:
    controls = matched([(0, 1)], {(0, 1), (1, 0)}, np.ones((8, 4)))
    assert len(set(controls)) == 20 and {layer for layer, *_ in controls} == set(range(6))
    assert (0, 1) not in controls and (1, 0) not in controls


def test_no_control_lies_above_the_highest_layer_allowed() -> None:
    controls = matched([(3, 1)], [(3, 1)], np.ones((8, 9)), highest=3)
    assert {layer for layer, *_ in controls} == {1, 2, 3} and len(set(controls)) == 20


def test_controls_unlike_the_head_are_noted() -> None:
    removed = np.ones((3, 9))
    removed[1, 1], removed[0, 0] = 5.0, 100.0
    controls = [head for head in np.ndindex(3, 9) if head != (1, 1)][:20]
    said = how_matched((1, 1), controls, removed)
    assert said == "19 of 20 controls remove less than half as much; 1 of 20 controls remove more than twice as much"
    assert how_matched((1, 2), controls[1:], removed) == ""


def test_a_model_with_too_few_heads_is_filled_up_with_rotations_and_says_so() -> None:
    controls = matched([(0, 0)], [(0, 0)], np.ones((3, 4)))
    heads, rotations = [one for one in controls if len(one) == 2], [one for one in controls if len(one) == 3]
    assert len(heads) == 11 and rotations == [(0, 0, draw) for draw in range(9)]
    said = how_matched((0, 0), controls, np.ones((3, 4)))
    assert said == "9 of 20 controls are rotations of what is removed, which flatter"


def test_control_groups_have_as_many_heads_in_each_layer_and_no_candidate() -> None:
    members, suspects = [(2, 1), (2, 3), (3, 5)], {(2, 1), (2, 3), (3, 5), (2, 0), (3, 0)}
    drawn = control_groups(members, suspects, (LAYERS, HEADS), np.random.default_rng(0))
    assert drawn is not None and len(drawn.groups) == len(set(drawn.groups)) == 20 and drawn.note == ""
    for group in drawn.groups:
        assert sorted(layer for layer, *_ in group) == [2, 2, 3] and not group & suspects
    assert drawn.overlap == pytest.approx(np.sqrt((1 + 2 / 5) / (1 - 2 / 5)))


def test_the_spread_of_overlapping_groups_is_too_small_by_the_stated_factor() -> None:
    random = np.random.default_rng(0)
    inside, outside = [], []
    for _ in range(80):
        harms = random.normal(size=(1, 10))
        drawn = control_groups([(0, 0), (0, 1)], {(0, 0), (0, 1)}, (1, 10), random)
        assert drawn is not None
        totals = [sum(harms[head] for head in group) for group in drawn.groups]
        inside.append(np.var(totals, ddof=1) * drawn.overlap**2)
        outside.append(2.0)  # of the sum of two independent heads
    assert np.mean(inside) >= 0.75 * np.mean(outside)


def test_a_layer_full_of_candidates_lends_from_its_neighbours_and_says_so() -> None:
    full = {(2, head) for head in range(HEADS)}
    members = [(2, 1), (2, 3), (3, 1)]
    drawn = control_groups(members, full | {(3, 1)}, (LAYERS, HEADS), np.random.default_rng(0))
    assert drawn is not None and len(set(drawn.groups)) == 20
    assert drawn.note == "control groups have heads of neighbouring layers for L2"
    for group in drawn.groups:
        assert len(group) == 3 and {layer for layer, *_ in group} <= {1, 3} and not group & (full | {(3, 1)})
    assert drawn.overlap >= np.sqrt((1 + 1 / 7) / (1 - 1 / 7))


def test_no_groups_where_the_model_is_full_of_candidates() -> None:
    full = {(layer, head) for layer in range(LAYERS) for head in range(HEADS)} - {(0, 1), (5, 2), (5, 3)}
    assert control_groups([(2, 1), (2, 2)], full, (LAYERS, HEADS), np.random.default_rng(0)) is None  # three groups at most


def test_the_spread_of_groups_from_lent_layers_is_too_small_by_no_more_than_is_allowed_for() -> None:
    random, suspects = np.random.default_rng(0), {(1, head) for head in range(HEADS)}
    inside = []
    for _ in range(80):
        harms = random.normal(size=(3, HEADS))
        drawn = control_groups([(1, 0), (1, 1), (0, 0)], suspects | {(0, 0)}, (3, HEADS), random)
        assert drawn is not None
        totals = [sum(harms[head] for head in group) for group in drawn.groups]
        inside.append(np.var(totals, ddof=1) * drawn.overlap**2)
    assert np.mean(inside) >= 0.75 * 3.0  # of the sum of three independent heads


def test_what_controls_harm_elsewhere_is_asked_only_where_the_verdict_depends_on_it() -> None:
    clear, clumsy = Model(), Model()
    climb([seen("induction", NEEDED)], clear.bench([NEEDED]), STANDARD, 0)
    assert {heads for heads, metric in clear.asked if metric == "unmatched_loss"} == {frozenset([NEEDED]), frozenset()}
    clumsy.base["unmatched_loss"] = clumsy.base["unmatched_loss"] * 0
    found = climb([seen("induction", CLUMSY)], clumsy.bench([CLUMSY]), STANDARD, 0)
    assert next(f for f in found if f.measure == "attention").rung == 2  # it harms elsewhere as much: controls cannot save it
    assert {heads for heads, metric in clumsy.asked if metric == "unmatched_loss"} == {frozenset([CLUMSY]), frozenset()}


def test_only_the_eight_strongest_are_tried_jointly() -> None:
    model = Model()
    heads = [(layer, head) for layer in (1, 2, 3, 4, 5) for head in (2, 4)]
    climbed("induction", heads, model=model)
    strongest = frozenset(heads[:8])
    groups = {asked for asked, _ in model.asked if len(asked) == 8 and asked <= set(heads)}
    assert groups == {strongest}


@pytest.mark.parametrize("effort", [QUICK, STANDARD], ids=["shared", "own"])
def test_controls_are_suspected_of_nothing(effort: Effort) -> None:
    model = Model()
    suspects = {NEEDED, (2, 6), (3, 1), (3, 6), (1, 1)}
    climb([seen("induction", NEEDED), seen("duplicate_token", (3, 1))], model.bench(suspects), effort, 0)
    controls = {head for heads, _ in model.asked if len(heads) == 1 for head in heads} - {NEEDED, (3, 1)}
    assert len(controls) >= 20 and not controls & suspects
    assert len(controls) == 20 or effort is STANDARD


# --- kinds that attention alone does not show, and what they need ------------------------------------------------


def test_fixed_offsets_are_judged_alike_and_every_harm_can_be_measured() -> None:
    for behaviour in ("current_token", "offset_2", "offset_3"):
        assert harm_of(behaviour, 1, [(3, 3)]) == harm_of("previous_token", 1, [(3, 3)])
        assert climbed(behaviour, [NEEDED, IDLE])["L2H1"] == (3, "alone")
    for how in HARMS.values():
        for harm in how.harms:
            assert METRICS[harm.nats].unit == METRICS[harm.elsewhere].unit == "nats" and harm.metric in METRICS
    assert judged("first_token") is judged("punctuation") is judged("anti_copying") is None


def test_what_agreement_lists_and_suppression_are_judged_by() -> None:
    syntactic, suppression, successor = (harm_of(b, 1, []) for b in ("syntactic:nsubj", "copy_suppression", "successor"))
    assert (syntactic.metric, syntactic.falls, syntactic.unit) == ("agreement_difference", True, "logits")
    assert syntactic.materials == ("agreement", "text")
    assert (suppression.metric, suppression.falls, suppression.unit) == ("naive_copying", False, "probability")
    assert (suppression.nats, suppression.elsewhere) == ("fresh_loss", "repeated_loss")
    assert (successor.metric, successor.elsewhere) == ("next_item_loss", "text_loss")


def weighed(head: Head, eigenvalue: float, direct: float, *, rung: int = 1) -> list[Finding]:
    """A copying head by its weights, in context, and beside the label."""
    plain = replace(
        seen("copying", head, eigenvalue, rung=rung), measure="eigenvalue", material="weights", q=0.01 if rung else 0.9
    )
    context = replace(plain, measure="direct_effect", material="text", effect=direct, floor=0.05)
    return [plain, context, replace(context, material="random", effect=0.0, q=None), replace(plain, measure="top_k", effect=0.01)]


def test_a_label_by_weights_and_context_is_as_strong_as_the_weaker_of_the_rows_that_decide() -> None:
    labels = labels_of([*weighed((1, 1), 0.9, 0.1), *weighed((1, 2), 0.3, 0.5), *weighed((1, 3), 0.9, 0.9, rung=0)])
    assert [(label.head, round(label.strength, 6)) for label in labels] == [((1, 2), 3.0), ((1, 1), 2.0)]


def test_a_copying_head_climbs_by_the_loss_on_repeated_tokens() -> None:
    rows = [*weighed(NEEDED, 0.9, 0.4), *weighed(IDLE, 0.8, 0.3)]
    found = climb(rows, Model().bench([NEEDED, IDLE]), STANDARD, 0)
    rungs = {(f.site, f.measure, f.material): f.rung for f in found if f.behaviour == "copying"}
    assert rungs["L2H1", "eigenvalue", "weights"] == rungs["L2H1", "direct_effect", "text"] == 3
    assert rungs["L3H5", "eigenvalue", "weights"] == 1
    (harm,) = [f for f in found if f.measure == "harm" and f.site == "L2H1"]
    assert harm.material == "text" and "repeated loss" in harm.note


def test_who_is_suspected() -> None:
    candidates = [seen("induction", (1, 1)), replace(seen("induction", (1, 2), 0.0, rung=0), q=0.4)]
    rows = [*candidates, seen("induction", (1, 3), 0.9, rung=0)]  # without a q: discovery did not pick it
    rows += [*weighed((2, 1), 0.9, 0.4), *weighed((2, 2), 0.9, 0.4, rung=0), *weighed((2, 3), 0.05, 0.4, rung=0)]
    rows += [seen("first_token", (3, 3)), replace(seen("first_token", (3, 4)), behaviour="anti_copying")]
    assert suspects_of(rows) == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_labels_whose_material_a_model_lacks_keep_their_rung_and_say_why() -> None:
    relation = seen("syntactic:nsubj", NEEDED, material="text")
    bench = replace(Model().bench([NEEDED]), absent={"agreement": "the tokenizer knows no verbs"})
    (row,) = climb([relation], bench, STANDARD, 0)
    assert (row.rung, row.note) == (1, "rung 2 not measured: the tokenizer knows no verbs")
    (row,) = climb([relation], Model().bench([NEEDED]), STANDARD, 0)
    assert row.note == "rung 2 not measured: no agreement at this depth"


def test_a_syntactic_head_climbs_where_agreement_falls() -> None:
    model = Model()
    bench = model.bench([NEEDED, IDLE])
    bench = replace(bench, strata={**bench.strata, "agreement": ["a"] * UNITS}, removed={**EVEN, "agreement": EVEN["text"]})
    found = climb([seen("syntactic:nsubj", NEEDED), seen("syntactic:obj", IDLE)], bench, STANDARD, 0)
    assert {f.behaviour: f.rung for f in found if f.measure == "attention"} == {"syntactic:nsubj": 3, "syntactic:obj": 1}
    (harm,) = [f for f in found if f.measure == "harm" and f.site == "L2H1"]
    assert harm.unit == "logits" and harm.value > 0 and harm.material == "agreement"


def test_relations_take_turns_as_one_kind_with_the_strongest_head_of_each() -> None:
    rows = [seen("syntactic:nsubj", (1, i), 0.9 - 0.01 * i) for i in range(3)]
    rows += [seen("syntactic:obj", (2, i), 0.7 - 0.01 * i) for i in range(3)]
    rows += [seen("induction", (3, i), 0.5 - 0.01 * i) for i in range(3)]
    tried = [(label.behaviour, label.head) for label in chosen(labels_of(rows), most=4)]
    assert tried == [
        ("syntactic:nsubj", (1, 0)),
        ("induction", (3, 0)),
        ("syntactic:obj", (2, 0)),
        ("induction", (3, 1)),
    ]
    only = chosen(labels_of(rows), most=4, kinds=("induction",))
    assert [label.head for label in only] == [(3, 0), (3, 1), (3, 2)]


# --- nothing is run that no decision needs -----------------------------------------------------------------------


def test_a_head_without_harm_is_not_compared_with_controls() -> None:
    model = Model()
    found = climb([seen("induction", IDLE)], model.bench([IDLE]), STANDARD, 0)
    (harm,) = [f for f in found if f.measure == "harm"]
    expected = model.without([IDLE], "second_copy_loss") - model.without([], "second_copy_loss")
    assert harm.p == harm.q == 1.0 and harm.value == harm.effect == pytest.approx(expected.mean()) and harm.null_kind == "none"
    assert harm.effect_low < harm.effect < harm.effect_high and "no controls run" in harm.note
    assert {heads for heads, _ in model.asked} == {frozenset([IDLE]), frozenset()}


def test_controls_are_run_until_one_harms_as_much() -> None:
    model, suspects = Model(), {CLUMSY} | {(layer, head) for layer in (3, 5) for head in range(HEADS)}
    found = climb([seen("induction", CLUMSY)], model.bench(suspects), STANDARD, 0)
    (harm,) = [f for f in found if f.measure == "harm"]
    assert harm.p == harm.q == 1.0 and "a control harms as much: L2H1" in harm.note and harm.null_kind == "none"
    assert harm.effect == harm.value == pytest.approx(0.4, abs=0.03)
    asked = {head for heads, _ in model.asked for head in heads} - {CLUMSY}
    assert asked == {(1, head) for head in range(HEADS)} | {(2, 0), NEEDED}  # in their order, and none after it


def test_of_a_group_without_harm_no_parts_are_asked() -> None:
    model = Model()
    heads = [IDLE, (2, 5), (3, 6)]
    rows = [seen("induction", head, 0.8 - 0.05 * i) for i, head in enumerate(heads)]
    found = climb(rows, model.bench(heads), STANDARD, 0)
    assert {heads for heads, _ in model.asked if len(heads) > 1} == {frozenset(heads)}
    joint = [f for f in found if f.measure == "joint_harm"]
    assert len(joint) == 3 and all(f.p == f.q == 1.0 for f in joint) and not any(f.measure == "marginal_harm" for f in found)
