"""Do knowledge neurons carry facts? From what became of answers to findings, as pure arithmetic.

The unit is a held-out way to ask for the facts of a relation, averaged over these facts: facts that are asked for in the same
words are no independent witnesses, and often have neurons in common.
1. Suppression: silenced, a fact's neurons lower the log-probability of its answer on held-out ways to ask by more than 20 matched
   groups do (`stats.necessity`), and by more than they lower that of facts of other relations (t over units). Floor .02 nats.
2. Amplification: the same for the rise when they are doubled.
3. Agreement: the fall on own facts less three times the change of right verb forms, whichever way, is above zero.

A row for each neuron says which facts it belongs to, and how much of their answers' probability is owed to it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from innerworks.findings import Finding, against_controls, joined
from innerworks.model.study import Kept
from innerworks.neurons.groups import how_alike
from innerworks.neurons.knowledge.facts import WAYS
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array, Estimate, Necessity, estimate, family_q, harm_alone, necessity

BEHAVIOUR = "knowledge"
FLOOR = CONSTANTS.harm_floor  # nats
SIGNS = {"suppression": -1.0, "amplification": 1.0}
ABLATIONS = {"suppression": "zero", "amplification": "none"}


def findings(kept: Kept) -> list[Finding]:
    """All rows about knowledge neurons."""
    if "suppression/own" not in kept.arrays:
        return []
    rows = [row for name in SIGNS for row in _of_edit(kept, name)]
    rows += _of_agreement(kept)
    q = family_q({BEHAVIOUR: np.array([row["p"] for row in rows])})[BEHAVIOUR]
    return [*(Finding(**row, q=float(x)) for row, x in zip(rows, q, strict=True)), *_neurons(kept)]


def enough(relations: Sequence[str]) -> bool:
    """Do facts of these relations make units enough to decide anything?"""
    return len(set(relations)) * WAYS >= CONSTANTS.least_units


def having(kept: Kept) -> list[int]:
    """The facts that have neurons."""
    return sorted(set(kept.arrays["members"][:, 0].tolist()))


def _by_unit(kept: Kept, name: str) -> Array:
    """Facts averaged: `[..., fact, way]` to `[..., unit]`."""
    relations, by_fact = np.array([kept.about["relations"][number] for number in having(kept)]), kept.arrays[name]
    of_relation = [by_fact[..., relations == one, :].mean(axis=-2) for one in dict.fromkeys(relations.tolist())]
    return np.concatenate(of_relation, axis=-1)


_PLACE = {"chapter": "neurons", "behaviour": BEHAVIOUR, "material": "facts", "site": "model"}


def _of_edit(kept: Kept, name: str) -> list[dict[str, Any]]:
    """Own facts against matched groups, and against facts of other relations."""
    own, others = (SIGNS[name] * _by_unit(kept, f"{name}/{of}") for of in ("own", "others"))
    beside, without = _beside(kept, name, own), f"{name}/controls" not in kept.arrays
    share = f"{float(kept.arrays[f'{name}/share'][0]):+.0%} of the answers' probability"
    less = "the model has too few neurons for control groups" if without else "a control group does as much"
    alike = "" if without else how_alike(kept.arrays["times_as_much"])
    said = joined(share, _per_fact(kept), "" if beside.above_all else less, alike)
    first = against_controls(beside) | {"floor": FLOOR, "measure": name, "note": said}
    first |= {"null_kind": "none" if without else "matched groups"}
    second = _tested(own, others, FLOOR) | {"measure": f"{name}_own", "null_kind": "facts of other relations"}
    return [{**_PLACE, **row, "unit": "nats", "ablation": ABLATIONS[name]} for row in (first, second)]


def _beside(kept: Kept, name: str, own: Array) -> Necessity:
    units = [""] * len(own)
    if f"{name}/controls" not in kept.arrays:
        return harm_alone(own, units, floor=FLOOR)
    return necessity(own, SIGNS[name] * _by_unit(kept, f"{name}/controls"), units, floor=FLOOR)


def _of_agreement(kept: Kept) -> list[dict[str, Any]]:
    """What silencing costs own facts, beyond three times what it does to agreement."""
    own, agreement = -_by_unit(kept, "suppression/own"), _by_unit(kept, "suppression/agreement")
    ratio = CONSTANTS.selectivity_ratio
    note = f"right verb forms change by {agreement.mean():.4f} nats on average, one way or the other"
    row = _tested(own, ratio * agreement, 0.0)
    return [
        {**_PLACE, **row, "measure": "beyond_agreement", "null_kind": f"{ratio:g} times agreement", "unit": "nats", "note": note}
        | {"ablation": "zero"}
    ]


def _tested(own: Array, less: Array, floor: float) -> dict[str, Any]:
    """A difference over units."""
    found: Estimate = estimate(own - less, [""] * len(own))
    numbers = {"effect": float(found.mean), "effect_low": float(found.low), "effect_high": float(found.high)}
    test = {"floor": floor, "p": float(found.p_above(floor)), "mde": float(found.mde(floor)), "n": found.n, "df": found.df}
    return {**numbers, **test, "value": float(own.mean()), "null": float(less.mean())}


def _per_fact(kept: Kept) -> str:
    members, facts = kept.arrays["members"], len(having(kept))
    return f"{len(members) / facts:.1f} neurons for each of {facts} facts"


def _neurons(kept: Kept) -> list[Finding]:
    """One row for each neuron: the facts it belongs to, and its mean attribution over them."""
    of_neuron: dict[tuple[int, int], list[tuple[str, float]]] = {}
    for (number, layer, neuron), strength in zip(kept.arrays["members"].tolist(), kept.arrays["strength"].tolist(), strict=True):
        of_neuron.setdefault((layer, neuron), []).append((kept.about["facts"][number], strength))
    return [_neuron(layer, neuron, facts) for (layer, neuron), facts in sorted(of_neuron.items())]


def _neuron(layer: int, neuron: int, facts: list[tuple[str, float]]) -> Finding:
    strength = [one for _, one in facts]
    return Finding(
        chapter="neurons",
        behaviour=BEHAVIOUR,
        site=str(Site(layer=layer, neuron=neuron)),
        target=", ".join(name for name, _ in facts),
        layer=layer,
        index=neuron,
        measure="attribution",
        material="facts",
        value=float(np.mean(strength)),
        unit="probability",
        effect=float(np.mean(strength)),
        effect_low=float(min(strength)),
        effect_high=float(max(strength)),
        n=len(facts),
        null=0.0,
        null_kind="silent layer",
        floor=0.0,
        p=None,
        mde=None,
        half="discovery",
        note="from the smallest to the largest of its facts; not tested",
    )
