"""Which heads suppress copies, and what follows from it? From arrays to findings, as pure arithmetic.

1. *May be one*: the OV circuit anti-copies by its weights (the rows of `circuits`, false discoveries controlled over all heads),
   and the head is not of layer 0, before which nothing is predicted.
2. *Label*, rung 1: beyond that, attention on what is about to be predicted exceeds its floor over both nulls (`attention.py`);
   discovery picks candidates, confirmation tests, p is the largest of the three, Benjamini-Hochberg over the candidates.
3. Do these heads lower what they look at more where it is predicted (`direct_effect`)? Of labelled heads: is the model less well
   calibrated without them, beyond 20 control heads (`calibration`); how much of their effect is copy suppression (`cspa`,
   `cspa_ov`, `cspa_qk`); do they let go when earlier copying heads are gone (`let_go`), and is the harm of several together
   more than the sum (`self_repair`)?

Necessity (rung 2) is decided with that of all other labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerworks.findings import Finding, joined
from innerworks.heads.harms import Head
from innerworks.model.study import Units
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Estimate, adjust, estimate, family_q, upper_tail

Arrays = Mapping[str, np.ndarray]
BEHAVIOUR = "copy_suppression"
VARIANTS = ("mean", "both", "ov", "qk", "null")  # of `cspa.py`

#: measure -> the effect that must be exceeded, fixed before any model was looked at.
FLOORS: dict[str, float] = {
    # As for duplicates and induction on real text.
    "attention": 0.02,
    "attention_unpredicted": 0.02,
    # Logits: a twentieth, as direct effects of circuits.
    "direct_effect": 0.05,
    # A tenth of the calibration error of about .01 that pretrained models have on text.
    "calibration": 0.001,
    # Share of the effect beyond random sources and directions; McDougall et al. call .25, with real queries, little.
    "cspa": 0.25,
    "cspa_ov": 0.25,
    "cspa_qk": 0.25,
    # Logits of the predicted token: what a head lets go.
    "let_go": 0.01,
    # Nats per token, a tenth of the harm that counts as such.
    "self_repair": 0.002,
}


# --- labels ------------------------------------------------------------------------------------------------------


def anti_copiers(before: Sequence[Finding]) -> dict[Head, float]:
    """The heads whose OV circuit anti-copies by its weights, with its p, the strongest first.

    By weights alone: whether they are labelled for it was decided on the documents that this study confirms on.
    Not those of layer 0: nothing is predicted before it. The stream there is the current token, and what the lens
    names are tokens like that one (a head that looks from a comma back at full stops would pass).
    """
    rows = [one for one in before if (one.behaviour, one.measure) == ("anti_copying", "eigenvalue")]
    p = np.array([1.0 if one.p is None or one.effect <= one.floor else one.p for one in rows])
    passed = [(one, float(own)) for one, own, q in zip(rows, p, adjust(p), strict=True) if q <= CONSTANTS.level and one.layer]
    passed.sort(key=lambda pair: -pair[0].effect)
    return {(int(one.layer or 0), int(one.index or 0)): own for one, own in passed}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A score and its null, per document, of every head that was looked at; `[doc, head]`, documents of both halves."""

    measure: str
    value: Array
    null: Array
    sign: float
    halves: np.ndarray
    strata: np.ndarray

    def half(self, half: str, head: int) -> tuple[Estimate, float, float]:
        """The effect over the documents of a half that have it, and the averages of score and null."""
        value, null = self.value[:, head], self.null[:, head]
        here = (self.halves == half) & np.isfinite(value) & np.isfinite(null)
        if here.sum() < 2:
            return estimate(np.zeros(0), []), float("nan"), float("nan")
        found = estimate(self.sign * (value[here] - null[here]), self.strata[here].tolist())
        return found, float(self.sign * value[here].mean()), float(self.sign * null[here].mean())

    def picked(self, head: int) -> bool:
        """Does discovery pick it?"""
        seen, _, _ = self.half("discovery", head)
        return bool(seen.mean > FLOORS[self.measure] and seen.mean > CONSTANTS.candidate_t * seen.se)


PAIRS = {
    "attention": ("own", "swapped", 1.0),
    "attention_unpredicted": ("paired", "elsewhere", 1.0),
    "direct_effect": ("effect_predicted", "effect_elsewhere", -1.0),
}
NULLS = {
    "attention": "pattern swap",
    "attention_unpredicted": "same keys, not predicted",
    "direct_effect": "same keys, not predicted",
}


def measured(arrays: Arrays, units: Units, measure: str) -> Measured:
    """One of the measures of attention or of its effect."""
    own, null, sign = PAIRS[measure]
    chosen = [units[int(unit)] for unit in arrays["units"]]
    return Measured(
        measure=measure,
        value=arrays[own].astype(np.float64),
        null=arrays[null].astype(np.float64),
        sign=sign,
        halves=np.array([unit[3] for unit in chosen]),
        strata=np.array([unit[1] for unit in chosen]),
    )


def labels(arrays: Arrays, units: Units, before: Sequence[Finding]) -> dict[Head, float]:
    """The q of every head that was looked at; at most .05 is a label."""
    heads, weights = _heads(arrays), anti_copiers(before)
    both = [measured(arrays, units, measure) for measure in ("attention", "attention_unpredicted")]
    p: dict[Head, float] = {}
    for number, head in enumerate(heads):
        if head in weights and all(one.picked(number) for one in both):
            tested = [float(one.half("confirmation", number)[0].p_above(FLOORS[one.measure])) for one in both]
            p[head] = max(weights[head], *tested)
    q = family_q({BEHAVIOUR: np.array(list(p.values()))})[BEHAVIOUR]
    return {**dict.fromkeys(heads, 1.0), **dict(zip(p, q.tolist(), strict=True))}


def labelled(q: Mapping[Head, float]) -> list[Head]:
    """The heads that bear the label, in the order in which they were looked at."""
    return [head for head, one in q.items() if one <= CONSTANTS.level]


def _heads(arrays: Arrays) -> list[Head]:
    return [(int(layer), int(head)) for layer, head in arrays["heads"]]


# --- findings ----------------------------------------------------------------------------------------------------


def findings(arrays: Arrays, about: Mapping[str, Any], units: Units, before: Sequence[Finding]) -> list[Finding]:
    """Everything that the arrays of `measure` say."""
    if "heads" not in arrays or len(arrays["heads"]) == 0:
        return []
    q = labels(arrays, units, before)
    rows: list[Finding] = []
    for measure in PAIRS:
        rows += _seen_rows(measured(arrays, units, measure), _heads(arrays), q, about)
    if "bins" in arrays:
        rows += _calibration_rows(arrays, about, units)
        rows += _let_go_rows(arrays, about, units)
        rows += _repair_rows(arrays, about, units)
    if "cspa" in arrays:
        rows += _cspa_rows(arrays, about, units)
    return rows


def _seen_rows(one: Measured, heads: list[Head], q: Mapping[Head, float], about: Mapping[str, Any]) -> list[Finding]:
    floor, rows = FLOORS[one.measure], []
    for head in heads:
        e, value, null = one.half("confirmation", heads.index(head))
        if e.n < 2:
            continue
        label = q[head] if one.measure != "direct_effect" else None
        few = f"only {e.n} documents: not decided" if e.n < CONSTANTS.least_units else ""
        told = about.get("suppressed", {}).get(head_site(*head), []) if one.measure == "direct_effect" else []
        most = "lowers most: " + ", ".join(repr(token) for token, *_ in told[:5]) if told else ""
        row = _row(head, one.measure, value=value, null=null, null_kind=NULLS[one.measure], e=e, q=label)
        row |= {"unit": "logits" if one.measure == "direct_effect" else "probability"}
        rows.append(Finding(**row, rung=int(q[head] <= CONSTANTS.level), p=float(e.p_above(floor)), note=joined(few, most)))
    return rows


def _row(head: Head, measure: str, *, value: float, null: float, null_kind: str, e: Estimate, q: float | None) -> dict[str, Any]:
    layer, index = head
    floor = FLOORS[measure]
    return {
        "chapter": "heads", "behaviour": BEHAVIOUR, "site": head_site(layer, index), "layer": layer, "index": index,
        "measure": measure, "material": "text", "value": value, "null": null, "null_kind": null_kind, "effect": float(e.mean),
        "effect_low": float(e.low), "effect_high": float(e.high), "n": e.n, "df": e.df, "floor": floor,
        "mde": float(e.mde(floor)), "q": q,
    }  # fmt: skip


# --- calibration -------------------------------------------------------------------------------------------------


def calibration_error(bins: Array, weights: Array | None = None) -> Array:
    """Expected calibration error, `sum over bins |confidence - share right| * share of rows`, in [0, 1]; less is better.

    bins: `[..., doc, bin, 3]` (rows, summed confidence, right answers). weights: `[draw, doc]`, how often each document is drawn;
    then there is one error per draw, `[..., draw]`.
    """
    weights = np.ones((1, bins.shape[-3])) if weights is None else weights
    total = np.einsum("nd,...dbk->...nbk", weights, bins)
    error = np.abs(total[..., 1] - total[..., 2]).sum(axis=-1) / total[..., 0].sum(axis=-1)
    return np.asarray(error[..., 0] if len(weights) == 1 else error)


def overconfidence(bins: Array) -> Array:
    """Mean confidence less the share of right answers, over all rows; above zero the model claims too much."""
    total = bins.sum(axis=(-3, -2))
    return np.asarray((total[..., 1] - total[..., 2]) / total[..., 0])


def draws(strata: Sequence[str], rng: np.random.Generator) -> Array:
    """How often each document is in each of 2000 bootstrap samples: drawn within strata of at least 8, else from all."""
    names = np.asarray(strata)
    _, sizes = np.unique(names, return_counts=True)
    names = names if sizes.min() >= CONSTANTS.stratified_from else np.full(len(names), "")
    out = np.zeros((CONSTANTS.bootstrap_draws, len(names)))
    for name in np.unique(names):
        here = np.flatnonzero(names == name)
        out[:, here] = rng.multinomial(len(here), np.full(len(here), 1 / len(here)), size=CONSTANTS.bootstrap_draws)
    return out


def bootstrapped(value: float, over: Array, n: int) -> Estimate:
    """An estimate whose standard error is the spread of its bootstrap draws."""
    return Estimate(
        mean=np.asarray(value), se=np.asarray(np.nanstd(over, ddof=1)), n=n, df=n - 1, positive=np.asarray(float(value > 0))
    )


def _confirmation(arrays: Arrays, units: Units) -> list[str]:
    """The strata of the documents behind ablations."""
    return [units[int(unit)][1] for unit in arrays["ablated_units"]]


def _calibration_rows(arrays: Arrays, about: Mapping[str, Any], units: Units) -> list[Finding]:
    """The rise of the calibration error without a head, beyond that without its controls."""
    names, bins = about["runs"], arrays["bins"].astype(np.float64)
    strata = _confirmation(arrays, units)
    over = calibration_error(bins, draws(strata, np.random.default_rng(about["seed"])))
    error, claims = calibration_error(bins), overconfidence(bins)
    controls = [names.index(name) for name in about["controls"]]
    rows, p = [], []
    for layer, index in about["labelled"]:
        run = names.index(head_site(layer, index))
        rise, others = error[run] - error[0], error[controls] - error[0]
        e = bootstrapped(rise - others.mean(), over[run] - over[controls].mean(axis=0), len(strata))
        spread = float(others.std(ddof=1)) * np.sqrt(1 + 1 / len(controls))
        p_controls = float(upper_tail(rise - others.mean(), spread, len(controls) - 1)) if spread > 0 else 1.0
        p.append(max(float(e.p_above(FLOORS["calibration"])), p_controls) if rise > others.max() else 1.0)
        note = joined(
            f"calibration error {error[0]:.4f} -> {error[run]:.4f}",
            f"confidence less share right {claims[0]:+.4f} -> {claims[run]:+.4f}",
            f"KL {arrays['divergence'][run].mean():.4f} nats (controls {arrays['divergence'][controls].mean():.4f})",
            f"loss {arrays['loss'][0].mean():.4f} -> {arrays['loss'][run].mean():.4f} nats",
            "" if rise > others.max() else f"without a control it rises as much ({others.max():+.4f})",
            about["matched"][head_site(layer, index)],
        )
        row = _row(
            (layer, index), "calibration", value=float(rise), null=float(others.mean()), null_kind="control heads", e=e, q=None
        )
        rows.append(row | {"unit": "probability", "ablation": "mean", "note": note, "rung": 1})
    return [Finding(**row | {"p": own, "q": float(q)}) for row, own, q in zip(rows, p, adjust(np.array(p)), strict=True)]


# --- share explained ---------------------------------------------------------------------------------------------


def explained(kl: Array, weights: Array | None = None) -> Array:
    """`1 - KL(kept) / KL(mean)` for variants and documents `[variant, doc]`, the first variant being the mean ablation.

    weights: `[draw, doc]`; then `[variant, draw]`. One: all of the effect is kept; zero: none; below zero, it does harm.
    """
    total = kl.sum(axis=1, keepdims=True) if weights is None else kl @ weights.T
    share = 1 - total / total[:1]
    return share[:, 0] if weights is None else share


def _cspa_rows(arrays: Arrays, about: Mapping[str, Any], units: Units) -> list[Finding]:
    strata = _confirmation(arrays, units)
    weights = draws(strata, np.random.default_rng(about["seed"]))
    null, rows = VARIANTS.index("null"), []
    for number, (layer, index) in enumerate(about["labelled"]):
        kl = arrays["cspa"][number].astype(np.float64)
        share, over = explained(kl), explained(kl, weights)
        for measure, variant in (("cspa", "both"), ("cspa_ov", "ov"), ("cspa_qk", "qk")):
            at = VARIANTS.index(variant)
            e = bootstrapped(float(share[at] - share[null]), over[at] - over[null], len(strata))
            kind = "random sources and directions"
            row = _row((layer, index), measure, value=float(share[at]), null=float(share[null]), null_kind=kind, e=e, q=None)
            low, high = np.quantile(over[at], [0.025, 0.975])
            note = f"share explained {share[at]:.3f} [{low:.3f}, {high:.3f}]; KL at its mean {kl[0].mean():.4f} nats"
            rows.append(Finding(**row | {"unit": "share of KL", "p": float(e.p_above(FLOORS[measure])), "note": note, "rung": 1}))
    return rows


# --- self-repair -------------------------------------------------------------------------------------------------


def _let_go_rows(arrays: Arrays, about: Mapping[str, Any], units: Units) -> list[Finding]:
    """Without earlier copying heads, does a suppression head lower the predicted token less?"""
    names, toward = about["runs"], arrays["toward"].astype(np.float64)  # run watched doc
    watched = [tuple(head) for head in about["watched"]]
    strata = np.array(_confirmation(arrays, units))
    rows = []
    for layer, index in about["labelled"]:
        head, copiers = (layer, index), [tuple(one) for one in about["copiers"] if one[0] < layer]
        name = "+".join(head_site(*one) for one in sorted(copiers))
        if not copiers or name not in names:
            continue
        change = toward[names.index(name), watched.index(head)] - toward[0, watched.index(head)]
        earlier = [
            names.index(one) for one in about["controls"] if np.isfinite(toward[names.index(one), watched.index(head)]).any()
        ]
        null = toward[earlier, watched.index(head)].mean(axis=0) - toward[0, watched.index(head)] if earlier else 0.0 * change
        here = np.isfinite(change) & np.isfinite(null)
        if here.sum() < 2:
            continue
        e = estimate((change - null)[here], strata[here].tolist())
        lost = arrays["copied"][about["labelled"].index([layer, index])].astype(np.float64)[here].mean()
        note = f"without {name}, which gave the predicted token {lost:.3f} logits beyond their mean"
        note += f": {100 * change[here].mean() / lost:.0f} % of that is let go" if lost > 0 else ""
        kind = f"{len(earlier)} earlier control heads" if earlier else "zero"
        row = _row(head, "let_go", value=float(change[here].mean()), null=float(null[here].mean()), null_kind=kind, e=e, q=None)
        p = float(e.p_above(FLOORS["let_go"]))
        rows.append(Finding(**row | {"unit": "logits", "target": name, "ablation": "mean", "p": p, "note": note, "rung": 1}))
    return rows


def _repair_rows(arrays: Arrays, about: Mapping[str, Any], units: Units) -> list[Finding]:
    """Is the harm of several heads together more than the sum of their harms alone?"""
    names, strata, rows = about["runs"], _confirmation(arrays, units), []
    harm = (arrays["loss"] - arrays["loss"][:1]).astype(np.float64)
    for family, members in about["families"].items():
        sites = [head_site(*head) for head in sorted(tuple(head) for head in members)]
        together, alone = harm[names.index("+".join(sites))], sum(harm[names.index(site)] for site in sites)
        e = estimate(together - alone, strata)
        floor = FLOORS["self_repair"]
        numbers = {"effect": e.mean, "effect_low": e.low, "effect_high": e.high, "p": e.p_above(floor), "mde": e.mde(floor)}
        row: dict[str, Any] = {name: float(one) for name, one in numbers.items()}
        row |= {"chapter": "heads", "behaviour": BEHAVIOUR, "site": "model", "target": ", ".join(sites), "measure": "self_repair"}
        row |= {
            "material": "text",
            "value": float(together.mean()),
            "null": float(np.mean(alone)),
            "null_kind": "sum of single harms",
        }
        row |= {"unit": "nats", "n": e.n, "df": e.df, "floor": floor, "ablation": "mean"}
        rows.append(Finding(**row, note=f"{family}, loss of the next token"))
    return rows
