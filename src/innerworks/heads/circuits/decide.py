"""Which heads copy, anti-copy or increment? From arrays to findings, as pure arithmetic.

1. By the weights: the score less the mean of mismatched parts must exceed its floor, and p is the share of mismatched parts
   that score as high (`nulls.py`). Weights are no sample, so the interval is the number itself, n is 1, and `mde` says what a
   lone head would have had to score.
2. In context: the direct effect must exceed its floor over units (documents; lists). Discovery picks candidates, confirmation
   tests.
3. A label needs both: p is the larger one (1 for what is no candidate), false discoveries are controlled over all heads and
   the three families (`stats.family_q`). That is rung 1: weights alone label nothing.
4. Beside the label: `top_k` and the fall of succession without the first feed-forward's part (`through_first_mlp`) are
   controlled by themselves and show the label's rung only where they pass too.

Everything is a function of the arrays, so an atlas can be decided again.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from innerworks.findings import Finding, joined
from innerworks.heads.circuits.measure import Arrays, read_about
from innerworks.heads.circuits.nulls import FAMILIES, p_of
from innerworks.model.study import Units
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Estimate, adjust, estimate, family_q

#: measure -> the effect that must be exceeded, fixed before any model was scored.
FLOORS: dict[str, float] = {
    # In [-1, 1]. The spread of a random circuit is about 1.5 / d_head (the trace of a Ginibre matrix over the sum of its
    # eigenvalues' sizes): .02 at d_head 64. A tenth of the way to a pure copy is above that, and below what Elhage et al. plot as
    # copying heads, which lie near 1.
    "eigenvalue": 0.10,
    # Share of tokens. Random circuits give 10 / vocab; one token in ten is the least that one would call copying.
    "top_k": 0.10,
    # Logits, averaged over all rows of ordinary text: a twentieth of a logit on every token, where heads mostly rest.
    "direct_effect": 0.05,
    # Share of ordinals above mismatched parts. Twice this, a half, is what Gould et al. call a successor head, and a "none" must
    # exclude twice the floor.
    "succession": 0.25,
    "succession_in_context": 0.25,
    "through_first_mlp": 0.25,
}
SIGNS = {"copying": 1.0, "anti_copying": -1.0}
MATERIALS = ("text", "random")
LABELLED_ON = "text"
OWN, SWAPPED = 0, 1
MISMATCHED = "mismatched parts"
EXACT = "weights are no sample: the interval is the number"


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A score of weights, for every head: arrays are `[layer, head]`."""

    measure: str
    value: Array
    null: float
    draws: int
    p: Array
    mde: Array

    @property
    def effect(self) -> Array:
        """The score less the mean of mismatched parts."""
        return self.value - self.null

    @property
    def p_label(self) -> Array:
        """As p, and 1 at or below the floor."""
        return np.where(self.effect > FLOORS[self.measure], self.p, 1.0)


@dataclass(frozen=True, kw_only=True)
class InContext:
    """A direct effect on one material, for every head, on both halves."""

    measure: str
    material: str
    value: Array
    null: Array
    null_kind: str
    unit: str
    discovery: Estimate
    confirmation: Estimate

    @property
    def p_label(self) -> Array:
        """Of confirmation, and 1 for what discovery did not pick."""
        floor, seen = FLOORS[self.measure], self.discovery
        with np.errstate(invalid="ignore"):
            picked = (seen.mean > floor) & (seen.mean > CONSTANTS.candidate_t * seen.se)
        return np.where(picked, self.confirmation.p_above(floor), 1.0)


@dataclass(frozen=True, kw_only=True)
class Label:
    """What the weights and the context of one behaviour come to."""

    weights: Weighed
    context: InContext | None
    q: Array

    @property
    def rung(self) -> np.ndarray:
        """1 where a head is labelled, else 0."""
        return (self.q <= CONSTANTS.level).astype(int)


def findings(arrays: Arrays, units: Units = ()) -> list[Finding]:
    """Which heads copy, anti-copy or increment, and how strongly: one finding per behaviour, measure, material and head.

    arrays: of `measure`. units: (id, stratum, material, half) of the reading's units, in its order; empty where none was read.
    """
    if "copying/eigenvalue" not in arrays:
        return []
    parts = {behaviour: _copying_parts(arrays, units, sign) for behaviour, sign in SIGNS.items()}
    if "successor/succession" in arrays:
        parts["successor"] = _successor_parts(arrays)
    shape = arrays["copying/eigenvalue"].shape[1:]
    p = {behaviour: _p_of_label(weights, context).ravel() for behaviour, (weights, context) in parts.items()}
    q = family_q(p)
    labels = {
        behaviour: Label(weights=weights, context=context, q=q[behaviour].reshape(shape))
        for behaviour, (weights, context) in parts.items()
    }
    rows: list[Finding] = []
    for behaviour, label in labels.items():
        rows += _label_rows(behaviour, label)
        rows += _beside_copying(arrays, units, behaviour, label) if behaviour in SIGNS else _beside_successor(arrays, label)
    return rows


def _p_of_label(weights: Weighed, context: InContext | None) -> Array:
    return np.ones_like(weights.p) if context is None else np.maximum(weights.p_label, context.p_label)


# --- what is read off the arrays ---------------------------------------------------------------------------------


def weigh(measure: str, value: Array, null: Array, *, count: Array | None = None, null_count: Array | None = None) -> Weighed:
    """Compare the scores `[layer, head]` of heads with those of mismatched parts.

    count: how many numbers each score is made of; then p compares `score * sqrt(count)`, since few numbers score high by chance.
    """
    root = np.ones_like(value) if count is None else np.sqrt(count)
    rivals = null if null_count is None else null * np.sqrt(null_count)
    mean = float(null.mean())
    alone = float(np.quantile(rivals, 1 - CONSTANTS.level / (FAMILIES * value.size), method="higher"))
    return Weighed(
        measure=measure,
        value=value,
        null=mean,
        draws=len(null),
        p=p_of(value * root, rivals),
        mde=np.maximum(FLOORS[measure], alone / root - mean),
    )


def _copying_parts(arrays: Arrays, units: Units, sign: float) -> tuple[Weighed, InContext | None]:
    (score, count), (null, null_count) = arrays["copying/eigenvalue"], arrays["copying/eigenvalue_null"]
    weights = weigh("eigenvalue", sign * score, sign * null, count=count, null_count=null_count)
    return weights, direct_effect(arrays, units, LABELLED_ON, sign)


def direct_effect(arrays: Arrays, units: Units, material: str, sign: float) -> InContext | None:
    """Direct effects on attended tokens beyond those on others, in one material; None where too little of it was read."""
    if "copying/direct" not in arrays or len(units) == 0:
        return None
    rows = arrays["copying/rows"].astype(np.float64)
    halves = np.array([unit[3] if unit[2] == material and read > 0 else "" for unit, read in zip(units, rows, strict=True)])
    if min((halves == half).sum() for half in ("discovery", "confirmation")) < 2:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sign * arrays["copying/direct"].astype(np.float64) / rows[:, None, None, None]
    strata = np.array([unit[1] for unit in units])
    seen = {
        half: estimate(mean[halves == half, OWN] - mean[halves == half, SWAPPED], strata[halves == half].tolist())
        for half in ("discovery", "confirmation")
    }
    own, swapped = (mean[halves == "confirmation", side].mean(axis=0) for side in (OWN, SWAPPED))
    return InContext(
        measure="direct_effect", material=material, value=own, null=swapped, null_kind="token swap", unit="logits", **seen
    )


def _successor_parts(arrays: Arrays) -> tuple[Weighed, InContext | None]:
    weights = weigh("succession", pooled(arrays, "succession"), pooled(arrays, "succession_null"))
    return weights, _lists(arrays, "direct_effect", "lists_direct", np.zeros(()), "other members of the class", "logits")


def pooled(arrays: Arrays, name: str) -> Float[np.ndarray, "*heads"]:
    """The share over the tokens of all classes."""
    counted = np.array([count for _, _, count in read_about(arrays)[0]], dtype=np.float64)
    return arrays[f"successor/{name}"] @ counted / counted.sum()


def _lists(arrays: Arrays, measure: str, name: str, null: Array, null_kind: str, unit: str) -> InContext | None:
    """A measure of lists, less its null per run of members."""
    confirm = arrays.get("successor/lists_confirm", np.zeros(0, dtype=bool)).astype(bool)
    if min(confirm.sum(), (~confirm).sum()) < 2:
        return None
    value, strata = arrays[f"successor/{name}"], arrays["successor/lists_class"].astype(str)
    effect = value - (null[:, None, None] if null.ndim else null)
    return InContext(
        measure=measure,
        material="lists",
        value=value[confirm].mean(axis=0),
        null=np.broadcast_to(null[confirm].mean() if null.ndim else null, value.shape[1:]),
        null_kind=null_kind,
        unit=unit,
        discovery=estimate(effect[~confirm], strata[~confirm].tolist()),
        confirmation=estimate(effect[confirm], strata[confirm].tolist()),
    )


# --- rows ---------------------------------------------------------------------------------------------------------


def _label_rows(behaviour: str, label: Label) -> list[Finding]:
    """What a label rests on: the weights, and the context."""
    weights = label.weights
    passed = weights.p_label <= CONSTANTS.level
    notes = np.where(passed & (label.rung == 0), "by its weights alone: no label", "")
    rows = _weight_rows(behaviour, weights, q=label.q, rung=label.rung, notes=notes)
    return rows + (_context_rows(behaviour, label.context, q=label.q, rung=label.rung) if label.context else [])


def _beside_copying(arrays: Arrays, units: Units, behaviour: str, label: Label) -> list[Finding]:
    """The rank of the token itself, and generated repeats."""
    rows: list[Finding] = []
    if "copying/top_k" in arrays:
        side = 0 if SIGNS[behaviour] > 0 else 1
        ranks = weigh("top_k", arrays["copying/top_k"][side], arrays["copying/top_k_null"][side])
        q = adjust(ranks.p_label.ravel()).reshape(ranks.p.shape)
        rows += _weight_rows(behaviour, ranks, q=q, rung=np.where(q <= CONSTANTS.level, label.rung, 0))
    for material in (one for one in MATERIALS if one != LABELLED_ON):
        context = direct_effect(arrays, units, material, SIGNS[behaviour])
        rows += _context_rows(behaviour, context, q=None, rung=label.rung) if context else []
    return rows


def _beside_successor(arrays: Arrays, label: Label) -> list[Finding]:
    """The fall without the first feed-forward's part (of the heads above it), and succession on lists."""
    _, dropped, shared = read_about(arrays)
    left = f"; dropped: {', '.join(dropped)}" if dropped else ""
    overlap = f"too few for lists without common items in both halves: {', '.join(shared)}" if shared else ""
    rows = [replace(row, note=f"{row.note}{left}") for row in _falls(arrays, label)]
    chance = arrays.get("successor/lists_chance", np.zeros(0))
    lists = _lists(arrays, "succession_in_context", "lists_share", chance, "chance", "share of ordinals")
    beside = _context_rows("successor", lists, q=None, rung=label.rung) if lists else []
    return rows + [replace(row, note=joined(row.note, overlap)) for row in beside]


def _falls(arrays: Arrays, label: Label) -> list[Finding]:
    """By how much succession falls without the first feed-forward's part, beyond the fall of mismatched parts.

    Heads of layer 0 come before it and have no row. Controlled by itself, over all heads; shows the label's rung only where it
    passes, too.
    """
    if "successor/whole_null" not in arrays:
        return []
    fall = pooled(arrays, "whole") - pooled(arrays, "raw")
    found = weigh("through_first_mlp", fall[1:], pooled(arrays, "whole_null") - pooled(arrays, "raw_null"))
    q = adjust(found.p_label.ravel()).reshape(found.p.shape)
    counted = read_about(arrays)[0]
    told = f"{sum(count for *_, count in counted)} tokens of {len(counted)} classes"
    notes = np.full(fall[1:].shape, f"with the first feed-forward's part, less without it; {told}", dtype=object)
    rung = np.where(q <= CONSTANTS.level, label.rung[1:], 0)
    return _weight_rows("successor", found, q=q, rung=rung, notes=notes, first_layer=1)


def _weight_rows(
    behaviour: str, found: Weighed, *, q: Array, rung: np.ndarray, notes: np.ndarray | None = None, first_layer: int = 0
) -> list[Finding]:
    unit = {"eigenvalue": "score", "top_k": "share of tokens"}.get(found.measure, "share of ordinals")
    rows = []
    for head in np.ndindex(*found.value.shape):
        said = "" if notes is None else str(notes[head])
        place = (head[0] + first_layer, head[1])
        one = _row(behaviour, found.measure, "weights", place, unit=unit, value=found.value[head], null=found.null)
        one |= _exact(found.effect[head], FLOORS[found.measure], p=float(found.p[head]), mde=float(found.mde[head]))
        one |= {"null_kind": MISMATCHED, "q": float(q[head]), "rung": int(rung[head])}
        one["note"] = joined(said, EXACT, f"{found.draws} mismatched parts")
        rows.append(Finding(**one))
    return rows


def _context_rows(behaviour: str, found: InContext, *, q: Array | None, rung: np.ndarray) -> list[Finding]:
    floor, e = FLOORS[found.measure], found.confirmation
    p, mde = e.p_above(floor), e.mde(floor)
    few = "" if e.n >= CONSTANTS.least_units else f"only {e.n} units: not decided"
    rows = []
    for head in np.ndindex(*found.value.shape):
        one = _row(
            behaviour, found.measure, found.material, head, unit=found.unit, value=found.value[head], null=found.null[head]
        )
        one |= {"effect": float(e.mean[head]), "effect_low": float(e.low[head]), "effect_high": float(e.high[head])}
        one |= {"n": e.n, "df": e.df, "floor": floor, "p": float(p[head]), "mde": float(mde[head])}
        one |= {"null_kind": found.null_kind, "q": None if q is None else float(q[head]), "rung": int(rung[head]), "note": few}
        rows.append(Finding(**one))
    return rows


def _row(
    behaviour: str, measure: str, material: str, head: tuple[int, ...], *, unit: str, value: Any, null: Any
) -> dict[str, Any]:
    layer, index = head
    place = {"chapter": "heads", "behaviour": behaviour, "site": head_site(layer, index), "layer": layer, "index": index}
    return {**place, "measure": measure, "material": material, "unit": unit, "value": float(value), "null": float(null)}


def _exact(effect: Any, floor: float, *, p: float | None = None, mde: float | None = None) -> dict[str, Any]:
    """An effect without an interval: weights are no sample of anything."""
    number = {name: float(effect) for name in ("effect", "effect_low", "effect_high")}
    return {**number, "n": 1, "df": 1, "floor": floor, "p": p, "mde": floor if mde is None else mde}
