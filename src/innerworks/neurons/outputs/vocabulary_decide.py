"""Which neurons raise a few tokens, lower a few, or divide the vocabulary? From arrays to findings.

1. By the weights: *heavy* has a kurtosis above 10 (a few tokens stand out), *dividing* a variance of more than five times that of
   shuffled weights and a kurtosis below 5. p is the share of shuffled weights that score as high.
2. In context, on confirmation documents: where it fires, a heavy neuron raises its ten tokens (*prediction*) or lowers them
   (*suppression*), a dividing one moves the vocabulary apart (*partition*), by more than the floor. Whether tokens are raised or
   lowered is decided here alone: the sign of the skew says nothing while the activation may be negative (gated families).
3. A label needs both: its q is the larger of the two (weights: over all neurons; context: over candidates and three kinds).

That is rung 1. A row for each of the strongest, and the share of labelled neurons of each layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from innerworks.findings import Finding, joined
from innerworks.model.study import Kept
from innerworks.neurons.outputs.weigh import p_of
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array, Estimate, adjust, family_q

HEAVY = 10.0  # kurtosis (3 for a bell curve), as Gurnee et al. have it
LIGHT = 5.0  # kurtosis: no tail to speak of
WIDE = 5.0  # times the variance of shuffled weights; Gurnee et al. have .005 at width 1,024, where those have .001
FLOOR = 0.25  # logits, where the neuron fires: makes its tokens a quarter likelier
KINDS = ("prediction", "suppression", "partition")
ROWS = 40  # of each kind
Z = 1.96


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One neuron that the weights point to, as one kind. number: among those weighed."""

    kind: str
    number: int
    effect: Estimate
    q: float


def candidates(kept: Kept) -> tuple[Int[np.ndarray, " heavy"], Int[np.ndarray, " dividing"]]:
    """Which of the neurons that were weighed have few outstanding tokens, and which divide the vocabulary."""
    kurtosis, variance = kept.arrays["kurtosis"], kept.arrays["variance"]
    wide = variance > WIDE * kept.arrays["variance_null"].mean()
    return np.flatnonzero(kurtosis > HEAVY), np.flatnonzero(wide & (kurtosis < LIGHT))


def weight_q(kept: Kept) -> tuple[Array, Array]:
    """The q of every neuron by its weights: as heavy, and as dividing."""
    heavy, dividing = candidates(kept)
    found = []
    for name, some in (("kurtosis", heavy), ("variance", dividing)):
        score, null = (kept.arrays[key].astype(np.float64) for key in (name, f"{name}_null"))
        found.append(adjust(np.where(np.isin(np.arange(len(score)), some), p_of(score, null), 1.0)))
    return found[0], found[1]


def tested(kept: Kept) -> list[Candidate]:
    """Every candidate as every kind that it may be, with its q."""
    by_weights = dict(zip(KINDS, (*[weight_q(kept)[0]] * 2, weight_q(kept)[1]), strict=True))
    numbers = {kind: kept.arrays["dividing" if kind == "partition" else "heavy"].tolist() for kind in KINDS}
    effects = {kind: [_estimate(*row) for row in kept.arrays[kind].tolist()] for kind in KINDS}
    q = family_q({kind: np.array([float(one.p_above(FLOOR)) for one in some]) for kind, some in effects.items()})
    return [
        Candidate(kind=kind, number=number, effect=one, q=max(float(own), float(by_weights[kind][number])))
        for kind in KINDS
        for number, one, own in zip(numbers[kind], effects[kind], q[kind], strict=True)
    ]


def labels(kept: Kept) -> list[Candidate]:
    """The strongest labelled neurons of each kind."""
    found = [one for one in tested(kept) if one.q <= CONSTANTS.level]
    return [one for kind in KINDS for one in _strongest(found, kind)]


def findings(kept: Kept) -> list[Finding]:
    """All rows about what neurons write over the vocabulary."""
    if "heavy" not in kept.arrays:
        return []
    found = [one for one in tested(kept) if one.q <= CONSTANTS.level]
    shown = [one for kind in KINDS for one in _strongest(found, kind)]
    return [*(_row(one, kept) for one in shown), *_shares(found, kept)]


def _strongest(found: Sequence[Candidate], kind: str) -> list[Candidate]:
    return sorted((one for one in found if one.kind == kind), key=lambda one: -float(one.effect.mean))[:ROWS]


def _estimate(mean: float, se: float, n: float, df: float, positive: float) -> Estimate:
    """Over the documents in which a neuron fires at all, as an atlas keeps it."""
    return Estimate(mean=np.asarray(mean), se=np.asarray(se), n=int(n), df=int(df), positive=np.asarray(positive))


def _row(one: Candidate, kept: Kept) -> Finding:
    layer, neuron = kept.arrays["neurons"][one.number].tolist()
    variance, skew, kurtosis = (float(kept.arrays[name][one.number]) for name in ("variance", "skew", "kurtosis"))
    words = " ".join(f"{word!r}" for word in kept.about.get("words", {}).get(str(one.number), ()))
    return Finding(
        chapter="neurons",
        behaviour=one.kind,
        site=str(Site(layer=layer, neuron=neuron)),
        layer=layer,
        index=neuron,
        measure="direct_effect",
        material="text",
        unit="logits",
        value=float(one.effect.mean),
        effect=float(one.effect.mean),
        effect_low=float(one.effect.low),
        effect_high=float(one.effect.high),
        n=one.effect.n,
        df=one.effect.df,
        null=0.0,
        null_kind="none",
        floor=FLOOR,
        p=float(one.effect.p_above(FLOOR)),
        mde=float(one.effect.mde(FLOOR)),
        q=one.q,
        rung=1,
        note=joined(f"kurtosis {kurtosis:.1f}, skew {skew:+.1f}, variance {variance:.2g}", words),
    )


def _shares(found: Sequence[Candidate], kept: Kept) -> list[Finding]:
    """What share of each layer's neurons is labelled; Wilson's interval, which is for those that were not weighed."""
    of_layer = kept.arrays["neurons"][:, 0]
    rows = []
    for kind in KINDS:
        labelled = of_layer[[one.number for one in found if one.kind == kind]]
        for layer in sorted(set(of_layer.tolist())):
            n, count = int((of_layer == layer).sum()), int((labelled == layer).sum())
            low, high = _wilson(count, n)
            rows.append(
                Finding(
                    chapter="neurons",
                    behaviour=kind,
                    site=f"L{layer}",
                    layer=layer,
                    measure="share_of_layer",
                    material="text",
                    unit="share",
                    value=count / n,
                    effect=count / n,
                    effect_low=low,
                    effect_high=high,
                    n=n,
                    null=0.0,
                    null_kind="none",
                    floor=0.0,
                    p=None,
                    mde=None,
                    note=f"{count} of {n} neurons; {kept.about['weighed']}",
                )
            )
    return rows


def _wilson(count: int, n: int) -> tuple[float, float]:
    share = count / n
    middle, reach = share + Z**2 / (2 * n), Z * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    return (middle - reach) / (1 + Z**2 / n), (middle + reach) / (1 + Z**2 / n)
