"""The ledger: clauses are answered by rule, verdicts add up as written, and missing evidence is never a verdict."""

from dataclasses import replace
from typing import Any

import pytest

from innerworks.claims import LEDGER, Claim, Clause, Evidence, judge
from innerworks.claims.rules import more, some
from innerworks.findings import Finding, frame


def row(site: str = "L0H0", **changes: Any) -> Finding:
    told: dict[str, Any] = dict(
        chapter="heads",
        behaviour="induction",
        site=site,
        measure="attention",
        material="text",
        value=0.0,
        unit="probability",
        effect=0.0,
        effect_low=-0.001,
        effect_high=0.001,
        n=60,
        df=50,
        null=0.0,
        null_kind="pattern swap",
        floor=0.02,
        p=1.0,
        mde=0.021,
    )
    return Finding(**{**told, **changes})


NOTHING = [row(f"L{layer}H{head}") for layer in range(4) for head in range(4)]
SEEN = row("L3H1", effect=0.5, effect_low=0.45, effect_high=0.55, rung=1, q=0.001)


def ask(clause: Clause, *rows: Finding) -> Evidence:
    return clause.ask(frame(rows))


class TestSomeExist:
    def test_a_label_is_a_yes_with_its_numbers(self):
        found = ask(some("x", "induction"), *NOTHING, SEEN)
        assert (found.answer, found.sites, found.number) == ("yes", ("L3H1",), 0.5)

    def test_power_makes_a_no(self):
        assert ask(some("x", "induction"), *NOTHING).answer == "no"

    def test_without_a_phantom_that_is_found_there_is_no_no(self):
        unplanted = [row(f"L0H{head}", behaviour="unheard_of") for head in range(8)]
        assert ask(some("x", "unheard_of"), *unplanted).answer == "open"

    def test_a_wide_interval_is_open_and_says_how_far(self):
        wide = row("L2H2", effect=0.01, effect_low=-0.04, effect_high=0.06)
        found = ask(some("x", "induction"), *NOTHING, wide)
        assert found.answer == "open" and "underpowered" in found.says

    def test_of_neurons_the_ceiling_makes_a_no(self):
        candidate = row("L2N7", effect=0.03, effect_low=0.01, effect_high=0.05)
        low = row("model", measure="ceiling", effect=0.02, effect_high=0.03)
        assert ask(some("x", "induction"), candidate).answer == "open"
        assert ask(some("x", "induction"), candidate, low).answer == "no"
        assert ask(some("x", "induction"), candidate, replace(low, effect_high=0.05)).answer == "open"
        assert ask(some("x", "induction"), candidate, replace(low, mde=0.05)).answer == "open"

    def test_few_powered_parts_are_open(self):
        weak = [row(f"L5H{head}", mde=0.2) for head in range(4)]
        assert ask(some("x", "induction"), *NOTHING, *weak).answer == "open"

    def test_one_material_is_enough_for_a_no(self):
        other = [row(one.site, material="random", floor=0.1, effect_high=5.0, mde=9.0) for one in NOTHING]
        assert ask(some("x", "induction"), *NOTHING, *other).answer == "no"

    def test_every_kind_asked_for_must_be_excluded(self):
        unsure = row("L1H1", behaviour="offset_2", effect_high=1.0)
        assert ask(some("x", ("induction", "offset_2")), *NOTHING, unsure).answer == "open"

    def test_of_weights_the_number_itself_is_the_bound(self):
        one = dict(null_kind="mismatched parts", n=1, df=1, effect=0.01, effect_low=0.01, effect_high=0.01, mde=0.02)
        assert ask(some("x", "induction"), *[row(f"L0H{head}", **one) for head in range(4)]).answer == "no"
        large = row("L0H4", **{**one, "effect": 0.05, "effect_high": 0.05})
        assert ask(some("x", "induction"), row(**one), large).answer == "open"

    def test_nothing_measured_is_open(self):
        assert ask(some("x", "induction")).answer == "open"

    def test_a_family_of_kinds(self):
        assert ask(some("x", "syntactic:"), row(behaviour="syntactic:nsubj<", rung=1, effect=0.3)).answer == "yes"


class TestNecessary:
    harm = dict(measure="harm", unit="nats", floor=0.02, effect_high=0.001, mde=0.021, null_kind="none")

    def test_labels_tried_with_power_and_without_harm_are_a_no(self):
        assert ask(some("x", "induction", rung=2), *NOTHING, SEEN, row("L3H1", **self.harm)).answer == "no"

    def test_a_label_that_was_not_tried_keeps_it_open(self):
        second = row("L3H2", effect=0.4, rung=1)
        found = ask(some("x", "induction", rung=2), *NOTHING, SEEN, second, row("L3H1", **self.harm))
        assert found.answer == "open" and "1 of 2" in found.says

    def test_nothing_to_ablate_follows_from_nothing_seen(self):
        assert ask(some("x", "induction", rung=2), *NOTHING).answer == "no"

    def test_heads_that_back_each_other_up_must_be_tried_jointly(self):
        second = row("L3H2", effect=0.4, rung=1)
        alone = [row(site, **self.harm) for site in ("L3H1", "L3H2")]
        assert ask(some("x", "induction", rung=2), *NOTHING, SEEN, second, *alone).answer == "open"
        joint = row("L3H1", **{**self.harm, "measure": "joint_harm", "target": "L3H1, L3H2"})
        assert ask(some("x", "induction", rung=2), *NOTHING, SEEN, second, *alone, joint).answer == "no"
        third = row("L3H3", effect=0.3, rung=1)  # tried alone, but no member of the group
        some_of_them = [third, *alone, row("L3H3", **self.harm), joint]
        assert ask(some("x", "induction", rung=2), *NOTHING, SEEN, second, *some_of_them).answer == "open"
        large = row(
            "L3H1",
            **{**self.harm, "measure": "joint_harm", "target": "L3H1, L3H2", "value": 1.2, "effect": 1.2, "effect_high": 1.4},
        )
        assert ask(some("x", "induction", rung=2), *NOTHING, SEEN, second, *alone, large).answer == "open"

    def test_harm_that_controls_do_as_well_is_no_no(self):
        hidden = {**self.harm, "value": 0.3, "effect": -0.11, "effect_high": -0.10, "null_kind": "control heads"}
        assert ask(some("x", "induction", rung=2), *NOTHING, SEEN, row("L3H1", **hidden)).answer == "open"

    def test_not_selective_is_a_no_only_if_all_necessary_heads_fail(self):
        necessary = row("L3H1", effect=0.5, rung=2)
        for note, answer in (("fail: ...", "no"), ("not decided: ...", "open")):
            collateral = row("L3H1", measure="collateral", note=note)
            assert ask(some("x", "induction", rung=3), necessary, collateral).answer == answer

    def test_no_ablation_at_all_is_open(self):
        assert ask(some("x", "induction", rung=2), SEEN).answer == "open"


class TestMore:
    @pytest.mark.parametrize(("low", "high", "answer"), [(0.03, 0.05, "yes"), (0.001, 0.01, "no"), (0.01, 0.03, "open")])
    def test_the_interval_against_the_floor(self, low: float, high: float, answer: str):
        p = 0.001 if answer == "yes" else 0.5
        one = row(measure="direct", effect=(low + high) / 2, effect_low=low, effect_high=high, p=p)
        assert ask(more("x", "induction", "direct"), one).answer == answer

    def test_three_texts_answer_nothing(self):
        few = dict(measure="direct", effect=0.5, effect_low=0.45, effect_high=0.55, p=0.001, n=3)
        assert ask(more("x", "induction", "direct"), row(**few)).answer == "open"

    def test_where_rows_have_a_q_those_that_discovery_rejected_answer_nothing(self):
        rejected = row("L0H1", measure="direct", effect=0.5, effect_low=0.45, effect_high=0.55, p=1e-6)
        picked = row("L0H2", measure="direct", effect=0.03, effect_low=0.01, effect_high=0.05, p=0.06, q=0.1)
        assert ask(more("x", "induction", "direct"), rejected, picked).answer == "open"
        assert ask(more("x", "induction", "direct"), rejected).answer == "yes"  # a measure without any q

    def test_a_second_clause_may_ask_the_pairs_that_passed_the_first(self):
        big = dict(effect=0.5, effect_low=0.45, effect_high=0.55, p=1e-6, q=1e-6)
        small = dict(effect=0.0, effect_low=-0.01, effect_high=0.01, p=1.0, q=1.0)
        first = [row(measure="keys", target="L0H1", **big), row(measure="keys", target="L0H2", **small)]
        second = [row(measure="path", target="L0H1", **small), row(measure="path", target="L0H2", **big)]
        assert ask(more("x", "induction", "path"), *first, *second).answer == "yes"
        assert ask(more("x", "induction", "path", among="keys"), *first, *second).answer == "no"
        assert ask(more("x", "induction", "path", among="keys"), *second).answer == "open"

    def test_where_not_all_pairs_were_asked_nothing_is_denied(self):
        below = row(measure="direct", effect=0.0, effect_low=-0.01, effect_high=0.01)
        assert ask(more("x", "induction", "direct"), below).answer == "no"
        assert ask(more("x", "induction", "direct", denies=False), below).answer == "open"

    def test_a_number_without_a_test_answers_nothing(self):
        bare = dict(measure="direct", effect=0.5, effect_low=0.5, effect_high=0.5, p=None)
        assert ask(more("x", "induction", "direct"), row(**bare)).answer == "open"


class TestVerdicts:
    @pytest.mark.parametrize(
        ("answers", "verdict"),
        [
            (("yes", "yes"), "holds"),
            (("yes", "no"), "holds in part"),
            (("yes", "open"), "holds in part"),
            (("no", "yes"), "does not hold"),
            (("open", "yes"), "not measured"),
        ],
    )
    def test_clauses_add_up(self, answers: tuple[str, ...], verdict: str):
        assert judge(claim(*answers), frame([])).verdict == verdict

    def test_what_is_missing_is_named(self):
        assert "open: clause 1" in judge(claim("yes", "open"), frame([])).summary

    def test_not_applicable_says_why(self):
        found = judge(claim("yes", applies=lambda findings: "no such part here"), frame([]))
        assert (found.verdict, found.summary) == ("not applicable", "no such part here")


def claim(*answers: Any, **options: Any) -> Claim:
    clauses = tuple(
        Clause(
            says=f"clause {i}", ask=lambda findings, i=i, answer=answer: Evidence(clause=f"clause {i}", answer=answer, says="so")
        )
        for i, answer in enumerate(answers)
    )
    return Claim(id="X", title="x", statement="x", citation="x", clauses=clauses, **options)


@pytest.mark.parametrize("claim", LEDGER.values(), ids=list(LEDGER))
def test_an_empty_atlas_measures_nothing(claim: Claim):
    assert judge(claim, frame([])).verdict == "not measured"


def test_a_no_is_licensed_only_by_kinds_that_phantoms_really_hold():
    from innerworks.claims.rules import PLANTED
    from innerworks.phantoms.kits import KITS

    planted = {kind for kit in KITS.values() for part in kit.parts if not part.decoy for kind in part.behaviours}
    assert planted >= PLANTED
