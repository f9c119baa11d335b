"""Do knowledge neurons carry facts? From what became of answers to findings, as pure arithmetic. The unit is the fact.

1. Suppression: silenced, a fact's neurons lower the log-probability of its answer on held-out ways to ask by more than 20 matched
   groups do (`stats.necessity`), and by more than they lower that of facts of other relations (t over facts). Floor .02 nats.
2. Amplification: the same for the rise when they are doubled.
3. Agreement: the fall on own facts less three times the change of right verb forms, whichever way, is above zero.

A row for each neuron says which facts it belongs to, and how much of their answers' probability is owed to it.
"""

from typing import Any

import numpy as np

from innerworks.findings import Finding
from innerworks.model.study import Kept
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Estimate, estimate, family_q, necessity

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


def strata(kept: Kept) -> list[str]:
    """The relation of each fact that has neurons."""
    return [kept.about["relations"][number] for number in sorted(set(kept.arrays["members"][:, 0].tolist()))]


_PLACE = {"chapter": "neurons", "behaviour": BEHAVIOUR, "material": "facts", "site": "model"}


def _of_edit(kept: Kept, name: str) -> list[dict[str, Any]]:
    """Own facts against matched groups, and against facts of other relations."""
    own, others, controls = (SIGNS[name] * kept.arrays[f"{name}/{of}"] for of in ("own", "others", "controls"))
    beside = necessity(own, controls, strata(kept), floor=FLOOR)
    share = f"{float(kept.arrays[f'{name}/share'][0]):+.0%} of the answers' probability"
    said = f"{share}; {_per_fact(kept)}" + ("" if beside.above_all else "; a control group does as much")
    first = {"value": beside.harm, "effect": beside.excess, "effect_low": beside.excess_low, "effect_high": beside.excess_high}
    first |= {"n": beside.n, "df": beside.df, "null": beside.control, "null_kind": "matched groups", "floor": FLOOR}
    first |= {"p": beside.p, "mde": beside.mde, "measure": name, "note": said}
    second = _tested(own, others, kept, FLOOR) | {"measure": f"{name}_own", "null_kind": "facts of other relations"}
    return [{**_PLACE, **row, "unit": "nats", "ablation": ABLATIONS[name]} for row in (first, second)]


def _of_agreement(kept: Kept) -> list[dict[str, Any]]:
    """What silencing costs own facts, beyond three times what it does to agreement."""
    own, agreement = -kept.arrays["suppression/own"], -kept.arrays["suppression/agreement"]
    ratio = CONSTANTS.selectivity_ratio
    note = f"right verb forms lose {agreement.mean():.4f} nats on average, and change by {abs(agreement).mean():.4f}"
    row = _tested(own, ratio * abs(agreement), kept, 0.0)
    return [
        {**_PLACE, **row, "measure": "beyond_agreement", "null_kind": f"{ratio:g} times agreement", "unit": "nats", "note": note}
        | {"ablation": "zero"}
    ]


def _tested(own: np.ndarray, less: np.ndarray, kept: Kept, floor: float) -> dict[str, Any]:
    """A difference over facts."""
    found: Estimate = estimate(own - less, strata(kept))
    numbers = {"effect": float(found.mean), "effect_low": float(found.low), "effect_high": float(found.high)}
    test = {"floor": floor, "p": float(found.p_above(floor)), "mde": float(found.mde(floor)), "n": found.n, "df": found.df}
    return {**numbers, **test, "value": float(own.mean()), "null": float(less.mean())}


def _per_fact(kept: Kept) -> str:
    members = kept.arrays["members"]
    having = len(set(members[:, 0].tolist()))
    return f"{len(members) / having:.1f} neurons for each of {having} facts"


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
