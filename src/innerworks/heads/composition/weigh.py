"""What do scores of weights come to? Candidates for composition, and heads that would look at copies; no labels.

1. A composition score is held against all pairs of this model that cannot compose; p is the share of those that score as high, q
   Benjamini-Hochberg over all pairs of the kind. Only the 50 pairs furthest above the null become rows: the whole matrix stays
   among the arrays.
2. A QK circuit's share is held against mismatched parts; q is Benjamini-Hochberg over all heads of the behaviour.

Weights are no sample: the interval is the number itself and n is 1. All rows are at rung 0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from innerworks.findings import Finding
from innerworks.heads.circuits.nulls import p_of
from innerworks.sites import head_site
from innerworks.stats import Array, adjust

CANDIDATES = 50  # rows per kind of composition
KINDS = {"q": "queries", "k": "keys", "v": "values"}
BEHAVIOURS = ("previous_token", "duplicate_token")
CIRCUIT_FLOOR = 0.10  # of tokens or positions: the same as for the copying circuit's own token among ten
MISMATCHED = "mismatched parts"
NO_LABEL = "weights alone label nothing"


def findings(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> list[Finding]:
    """Rows for the pairs that stand out, and for the QK circuits of all heads."""
    rows: list[Finding] = []
    for kind in (one for one in KINDS if f"scores/{one}" in arrays):
        rows += composition(kind, _wide(arrays[f"scores/{kind}"]), _wide(arrays["scores/can"]), about)
    for behaviour in (one for one in BEHAVIOURS if f"qk/{one}" in arrays):
        rows += _circuits(behaviour, _wide(arrays[f"qk/{behaviour}"]), _wide(arrays[f"qk/{behaviour}/null"]))
    return rows


def composition(kind: str, scores: Array, can: Array, about: Mapping[str, Any]) -> list[Finding]:
    """The candidates of one kind. scores, can: `[sender, receiver]`; about: `heads` per layer, `d_model`, `distances`."""
    chosen, null = can == 1, scores[can == 0]
    if not chosen.any():
        return []
    senders, receivers = np.nonzero(chosen)
    values, mean, random = scores[chosen], float(null.mean()), about["d_model"] ** -0.5
    p = p_of(values, null)
    q = adjust(p)
    order = np.argsort(-values, kind="stable")[:CANDIDATES]
    told = [f"{len(values)} pairs, {len(null)} that cannot compose; random matrices: {random:.4f}"]
    told += [about["between"]] if kind != "v" and about["between"] else []
    rows = []
    for rank, number in enumerate(order.tolist()):
        sender, receiver = (divmod(int(one[number]), about["heads"]) for one in (senders, receivers))
        rows.append(
            Finding(
                **_place(f"composition:{kind}", receiver, "composition"),
                target=head_site(*sender),
                value=float(values[number]),
                unit="score",
                **_exact(float(values[number]) - mean, random),
                null=mean,
                p=float(p[number]),
                q=float(q[number]),
                note="; ".join([f"rank {rank + 1}", *told, NO_LABEL]),
            )
        )
    return rows


def _circuits(behaviour: str, value: Array, null: Array) -> list[Finding]:
    p = p_of(value, null)
    q, mean = adjust(p.ravel()).reshape(p.shape), float(null.mean())
    unit = "share of positions" if behaviour == "previous_token" else "share of tokens"
    return [
        Finding(
            **_place(behaviour, head, "qk_circuit"),
            value=float(value[head]),
            unit=unit,
            **_exact(float(value[head]) - mean, CIRCUIT_FLOOR),
            null=mean,
            p=float(p[head]),
            q=float(q[head]),
            note=f"{len(null)} mismatched parts; {NO_LABEL}",
        )
        for head in np.ndindex(*value.shape)
    ]


def _wide(array: np.ndarray) -> Array:
    return array.astype(np.float64)


def _place(behaviour: str, head: tuple[int, ...], measure: str) -> dict[str, Any]:
    layer, index = head
    place = {"chapter": "heads", "behaviour": behaviour, "site": head_site(layer, index), "layer": layer, "index": index}
    return {**place, "measure": measure, "material": "weights", "null_kind": MISMATCHED, "rung": 0}


def _exact(effect: float, floor: float) -> dict[str, Any]:
    """An effect without an interval."""
    return {"effect": effect, "effect_low": effect, "effect_high": effect, "n": 1, "df": 1, "floor": floor, "mde": floor}
