"""What claims about neurons' inputs read: labels, ceilings, and whether there can be dead neurons at all."""

from dataclasses import replace
from typing import Any

import pytest

from innerworks.claims import LEDGER, Verdict, judge
from innerworks.findings import Finding, frame
from innerworks.neurons.inputs import polysemy


def row(behaviour: str, measure: str, site: str = "L1N7", **changes: Any) -> Finding:
    told: dict[str, Any] = dict(
        chapter="neurons",
        behaviour=behaviour,
        site=site,
        measure=measure,
        material="text",
        value=0.3,
        unit="share of variance",
        effect=0.3,
        effect_low=0.25,
        effect_high=0.35,
        n=60,
        df=50,
        null=0.0,
        null_kind="all other features",
        floor=0.08,
        p=1e-9,
        mde=0.09,
        q=1e-7,
        rung=1,
    )
    return Finding(**{**told, **changes})


def verdict(claim: str, *rows: Finding) -> Verdict:
    return judge(LEDGER[claim], frame(rows))


@pytest.mark.parametrize(
    ("claim", "behaviour"),
    [("F1", "position_neuron"), ("F10", "alphabet_neuron"), ("F11", "previous_token_neuron")],
)
def test_a_label_makes_a_claim_hold_and_a_wide_ceiling_leaves_it_open(claim: str, behaviour: str) -> None:
    label = row(behaviour, "variance_explained")
    ceiling = row(behaviour, "ceiling", "model", target="L0N0", effect_high=0.5, p=None, q=None, rung=0)
    harm = row(behaviour, "harm", unit="nats", floor=0.02, q=0.01, rung=0)
    assert verdict(claim, label, ceiling, harm).verdict == "holds"
    idle = replace(harm, effect=0.001, effect_low=0.0, effect_high=0.002, q=1.0)
    in_part = verdict(claim, label, ceiling, idle, replace(idle, measure="joint_harm", site="model"))
    assert (in_part.verdict, in_part.evidence[-1].answer) == ("holds in part", "open")
    assert verdict(claim, label, ceiling, idle, replace(harm, measure="joint_harm", site="model")).verdict == "holds"
    found = verdict(claim, replace(label, rung=0, q=1.0), ceiling)
    assert (found.verdict, found.evidence[0].answer) == ("not measured", "open")
    assert "0.500 not excluded" in found.summary
    assert verdict(claim).verdict == "not measured"


def test_dead_neurons_are_asked_of_models_with_relu_only() -> None:
    near = row("dead_neuron", "near_dead_share", "model", note="0 of 46,080: hardly write", p=None, q=None, rung=0)
    found = verdict("F8", near)
    assert found.verdict == "not applicable" and "0 of 46,080" in found.summary
    dead = row("dead_neuron", "never_fires", unit="share of documents", floor=0.9, effect=1.0)
    assert verdict("F8", dead).verdict == "holds"


def test_that_every_neuron_fires_somewhere_is_a_certain_no() -> None:
    count: dict[str, Any] = {
        "site": "model",
        "unit": "share of neurons",
        "floor": 0.0,
        "p": None,
        "mde": None,
        "q": None,
        "rung": 0,
    }
    none = row("dead_neuron", "dead_share", **count, value=0.0, effect=0.0, note="0 of 144: exactly zero at every token")
    found = verdict("F8", none)
    assert (found.verdict, found.evidence[0].answer) == ("does not hold", "no") and "0 of 144" in found.summary
    some = replace(none, value=0.1, effect=0.1)
    assert verdict("F8", some).verdict == "not measured"  # one was zero all along, but too few documents tell


def test_that_detectors_lie_early_is_told_and_not_tested() -> None:
    detector = row("token_detector", "on_triggers", effect=0.99, floor=0.95)
    shape = {"site": "model", "floor": 0.5, "rung": 0, "q": None, "n": 40}
    early = polysemy._early(9, 10)
    assert (early.effect, early.effect_low, early.effect_high, early.n, early.p) == (0.9, 0.9, 0.9, 10, None)
    several = row("polysemantic_neuron", "several_tokens", **{**shape, "n": 2}, effect=0.95, p=None)
    common = row("token_neuron", "variance_explained", effect=0.8, floor=0.66)
    found = verdict("F7", detector, early, several, common)
    assert [one.answer for one in found.evidence] == ["yes", "open", "yes", "open", "open"]
    assert found.verdict == "holds in part" and (found.evidence[1].number, found.evidence[3].number) == (0.9, 0.95)
