"""Invented findings and arrays about feed-forward neurons, as the studies write them: for what shows them."""

from typing import Any

import numpy as np

from innerworks.atlas import Context, NeuronExample
from innerworks.findings import Finding
from innerworks.sites import Site

TESTS = (
    ("full", "position"),
    ("full", "token"),
    ("full", "previous_token"),
    ("types", "token_class"),
    ("types", "alphabet"),
    ("types", "frequency"),
    ("generated", "position"),
)
EVIL = "</script><script>window.evil=1</script>"


def row(behaviour: str, site: str, measure: str, effect: float, **changes: Any) -> Finding:
    """One row about a neuron or the model; it stands out if its effect exceeds its floor."""
    place = Site.parse(site) if site != "model" else Site()
    floor = changes.get("floor", 0.05)
    passes = effect > floor
    values: dict[str, Any] = dict(
        chapter="neurons",
        behaviour=behaviour,
        site=site,
        layer=place.layer,
        index=place.neuron,
        measure=measure,
        material="text",
        value=effect,
        unit="share of variance",
        effect=effect,
        effect_low=effect - abs(effect) / 10,
        effect_high=effect + abs(effect) / 10,
        n=80,
        null=0.0,
        null_kind="all other features",
        floor=floor,
        p=1e-9 if passes else 0.9,
        mde=floor * 1.2,
        q=1e-8 if passes else 1.0,
        rung=int(passes),
    )
    return Finding(**{**values, **changes})


def ceiling(behaviour: str, bound: float, **changes: Any) -> Finding:
    """The largest effect that any neuron may have."""
    shape = {"p": None, "q": None, "rung": 0, "effect_low": 0.0, "effect_high": bound, "note": "over all 48 neurons"}
    return row(behaviour, "model", "ceiling", bound / 2, **{**shape, **changes})


def findings() -> list[Finding]:
    """L1N3 tells where it is and is necessary; L0N5 fires on digits and knows the letter; L2N7 nearly; nothing of the rest."""
    nats = {"unit": "nats", "floor": 0.02, "null_kind": "control neurons", "ablation": "mean", "rung": 0}
    return [
        row("position_neuron", "L1N3", "variance_explained", 0.6, rung=2),
        row("position_neuron", "L1N3", "variance_explained", 0.5, material="random", rung=2),
        row("position_neuron", "L1N3", "harm", 0.3, **nats),
        row("token_class_neuron", "L0N5", "variance_explained", 0.4),
        row("alphabet_neuron", "L0N5", "variance_explained", 0.1),
        row("token_class_neuron", "L2N7", "variance_explained", 0.04),
        ceiling("position_neuron", 0.7),
        ceiling("token_class_neuron", 0.5),
        ceiling("previous_token_neuron", 0.03),
        row("skill:python", "L2N7", "predictivity", 0.3, unit="share of documents", floor=0.2),
        row("skill:french", "L2N7", "predictivity", 0.01, unit="share of documents", floor=0.2),
        row("skill:python", "model", "group_harm", 0.1, target="L2N7, L1N3", rung=0, unit="nats"),
    ]


def arrays(layers: int = 3, neurons: int = 16, *, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What the study of inputs keeps, made up: position explains L1N3, the sort of token L0N5."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(0.0, 0.005, (len(TESTS), layers, neurons)).astype(np.float32)
    mean[0, 1, 3], mean[3, 0, 5], mean[4, 0, 5] = 0.6, 0.4, 0.1
    peak = rng.gamma(2.0, 1.0, (3, 2, layers, neurons)).astype(np.float32)
    peak[:, 1] *= -1
    peak[:2, 0, 1, 3] = 42.0
    kept = {
        "mean": mean,
        "peak": peak,
        "histogram": rng.integers(1, 50, (layers, neurons, 32)).astype(np.int32),
        "spread": rng.gamma(2.0, 0.2, (layers, neurons)).astype(np.float32),
        "written": rng.gamma(9.0, 0.1, (layers, neurons)).astype(np.float32),
        "there": np.ones(layers, dtype=bool),
    }
    return kept, {"tests": [list(test) for test in TESTS]}


def example(site: str, tokens: tuple[str, ...], *, side: int = 1, position: int = 7) -> NeuronExample:
    """A neuron that is strongest on some tokens, hostile ones around them."""
    contexts = tuple(
        Context(unit=f"fiction/{i:02}", tokens=(" in", EVIL, token, "\n"), at=2, position=position + i, value=side * (9.0 - i))
        for i, token in enumerate(tokens)
    )
    return NeuronExample(
        site=site, side=side, contexts=contexts, raised=((" 1", 2.5), (" 22", 1.0), (EVIL, 0.5)), lowered=((" dog", -1.5),)
    )


def examples() -> list[NeuronExample]:
    """Where the three neurons of `findings` are strongest."""
    return [example("L1N3", (" the", " a", " cat")), example("L0N5", (" 12", "7", " 2004"), side=-1, position=100)]
