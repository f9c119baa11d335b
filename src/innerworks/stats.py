"""How innerworks decides: units, intervals, tests against a floor, false-discovery control, rungs 2 and 3.

The unit is the document (or one generated sequence), never the token. Half of the units discover, the other half confirm.
An effect must exceed its *floor*, not zero; p comes from a t test over units, stratified by domain. Nothing here knows
what was measured, and nothing is tuned to a model: every constant stands in `CONSTANTS`.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]
Half = Literal["discovery", "confirmation"]


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Every number a decision depends on, fixed before any model was seen."""

    level: float = 0.05  # false-discovery rate, and two-sided level of intervals
    candidate_t: float = 2.0  # a candidate's effect on discovery, in standard errors
    least_units: int = 12  # fewer units decide nothing
    positive_share: float = 2 / 3  # share of units whose effect must be positive
    stratified_from: int = 8  # units per stratum from which the stratified variance is used
    mde_p: float = 0.005  # the minimum detectable effect is that found at this p ...
    mde_power: float = 0.90  # ... with this probability
    first_row: int = 2  # rows (queries) before this are left out of content masks
    first_row_positional: int = 16  # and before this out of offsets and sinks
    harm_floor: float = 0.02  # nats per token, or attention mass, for rung 2
    controls: int = 20  # matched components a harm is compared with
    matched_factor: float = 2.0  # how alike a control's removed norm should be (else it is noted)
    unmatched_share: float = 0.25  # of controls that remove too little: beyond, random directions stand in (neurons)
    joint_members: int = 8  # the strongest labels that are tried jointly
    collateral_limit: float = 0.01  # nats of harm elsewhere that still count as little
    collateral_quantile: float = 0.75  # or this quantile of the controls' harm elsewhere
    least_collateral: float = 0.002  # nats: denominator of the selectivity ratio is at least this
    selectivity_ratio: float = 3.0  # harm must be this many times the harm elsewhere
    bootstrap_draws: int = 2000


CONSTANTS = Constants()


# --- units -------------------------------------------------------------------------------------------------------


def deal_halves(texts: Sequence[str], strata: Sequence[str]) -> list[Half]:
    """Deal units to halves: within each stratum, sorted by SHA-256 of the text, alternately.

    Independent of the order in which the units come, and both halves see every stratum.
    """
    halves: list[Half] = ["discovery"] * len(texts)
    by_stratum: dict[str, list[int]] = defaultdict(list)
    for unit, stratum in enumerate(strata):
        by_stratum[stratum].append(unit)
    for units in by_stratum.values():
        order = sorted(units, key=lambda unit: hashlib.sha256(texts[unit].encode()).hexdigest())
        for unit in order[1::2]:
            halves[unit] = "confirmation"
    return halves


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over units with its uncertainty; arrays have one entry per component (no axis for a single one)."""

    mean: Array
    se: Array
    n: int
    df: int
    positive: Array  # share of units above zero

    @property
    def low(self) -> Array:
        """Lower end of the 95 % interval."""
        return np.asarray(self.mean - stdtrit(self.df, 1 - CONSTANTS.level / 2) * self.se)

    @property
    def high(self) -> Array:
        """Upper end of the 95 % interval."""
        return np.asarray(self.mean + stdtrit(self.df, 1 - CONSTANTS.level / 2) * self.se)

    def bound(self, among: int = 1) -> Array:
        """An upper bound at the 95 % level; of `among` such bounds all hold together, since each has its share of the level."""
        return np.asarray(self.mean + stdtrit(self.df, 1 - CONSTANTS.level / among) * self.se)

    def p_above(self, floor: float) -> Array:
        """The p of "the effect is at most the floor", upper tail; 1 where the guards on n and on the sign fail."""
        p = upper_tail(self.mean - floor, self.se, self.df)
        guarded = (self.positive >= CONSTANTS.positive_share) & (self.n >= CONSTANTS.least_units)
        return np.where(guarded, p, 1.0)

    def mde(self, floor: float) -> Array:
        """The smallest true effect that would be found at p .005 with probability .9."""
        reach = stdtrit(self.df, 1 - CONSTANTS.mde_p) + stdtrit(self.df, CONSTANTS.mde_power)
        return np.asarray(floor + reach * self.se)


def estimate(effects: Array, strata: Sequence[str]) -> Estimate:
    """Average effects `[unit, ...]` over units; the variance within strata when each has at least 8 units.

    `se = s / sqrt(n)` with `s² = sum over strata and units of (D - stratum mean)² / (n - G)`. With fewer than 8 units
    in some stratum the stratified t is too liberal, and the plain standard deviation is used.
    """
    effects = np.asarray(effects, dtype=np.float64)
    n = len(effects)
    if n < 2:
        nothing = np.full(effects.shape[1:], np.nan)
        return Estimate(mean=nothing, se=nothing, n=n, df=1, positive=nothing)
    names, group = np.unique(np.asarray(strata), return_inverse=True)
    sizes = np.bincount(group)
    if sizes.min() < CONSTANTS.stratified_from:
        names, group = names[:1], np.zeros(n, dtype=int)
    centred = effects.copy()
    for g in range(len(names)):
        centred[group == g] -= effects[group == g].mean(axis=0)
    df = n - len(names)
    return Estimate(
        mean=np.asarray(effects.mean(axis=0)),
        se=np.asarray(np.sqrt((centred**2).sum(axis=0) / df / n)),
        n=n,
        df=df,
        positive=np.asarray((effects > 0).mean(axis=0)),
    )


def two_sample(here: Array, there: Array, *, times: float = 1.0) -> Estimate:
    """`mean(here) - times * mean(there)`, of two groups of units; degrees of freedom by Welch and Satterthwaite, rounded down."""
    parts = np.array([here.var(ddof=1) / len(here), times**2 * there.var(ddof=1) / len(there)])
    sizes, total = np.array([len(here), len(there)]), parts.sum()
    df = int(total**2 / (parts**2 / (sizes - 1)).sum()) if total > 0 else len(here) + len(there) - 2
    reference = times * there.mean()
    return Estimate(
        mean=np.asarray(here.mean() - reference),
        se=np.asarray(np.sqrt(total)),
        n=len(here) + len(there),
        df=max(df, 1),
        positive=np.asarray((here > reference).mean()),
    )


def estimate_from_sums(total: Array, squares: Array, positive: Array, units: Array) -> Estimate:
    """The same from sums by stratum, for more components than whose effects could be kept by unit.

    total, squares, positive: `[stratum, ...]`, of the effects, of their squares, and how many lie above zero; units: `[stratum]`.
    """
    used = units > 0
    total, squares, positive, n = (np.asarray(x, dtype=np.float64)[used] for x in (total, squares, positive, units))
    count = int(n.sum())
    if count < 2:
        nothing = np.full(total.shape[1:], np.nan)
        return Estimate(mean=nothing, se=nothing, n=count, df=1, positive=nothing)
    mean = total.sum(axis=0) / count
    if n.min() < CONSTANTS.stratified_from:
        strata, within = 1, squares.sum(axis=0) - count * mean**2
    else:
        by_stratum = n.reshape(-1, *[1] * (total.ndim - 1))
        strata, within = len(n), (squares - total**2 / by_stratum).sum(axis=0)
    df = count - strata
    se = np.sqrt(np.maximum(within, 0.0) / df / count)
    share = positive.sum(axis=0) / count
    return Estimate(mean=np.asarray(mean), se=np.asarray(se), n=count, df=df, positive=np.asarray(share))


def upper_tail(gap: Array | float, se: Array | float, df: int) -> Array:
    """The p of a t statistic `gap / se`, upper tail; without any spread it is 0 above the gap's zero and 1 at or below."""
    gap, se = np.broadcast_arrays(np.asarray(gap, dtype=np.float64), np.asarray(se, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(se > 0, gap / np.where(se > 0, se, 1.0), np.where(gap > 0, np.inf, -np.inf))
    return np.where(np.isnan(gap) | np.isnan(se), 1.0, stdtr(df, -t))


# --- false discoveries -------------------------------------------------------------------------------------------


def adjust(p: Array) -> Array:
    """Benjamini-Hochberg adjusted p values: the smallest level at which each would be rejected."""
    p = np.asarray(p, dtype=np.float64)
    if p.size == 0:
        return p
    order = np.argsort(p, kind="stable")
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def simes(p: Array) -> float:
    """The p of "nothing in this family is there": `min_k m p_(k) / k`, and 1 for an empty family."""
    return float(adjust(p).min()) if len(p) else 1.0


def family_q(p_by_family: Mapping[str, Array]) -> dict[str, Array]:
    """Two-level false-discovery control: families by Simes and BH, then BH within the selected ones.

    `q = min(1, p_BH * F / R)` with F families, R of them selected; a label needs q <= .05.
    """
    families = list(p_by_family)
    of_family = np.array([simes(p_by_family[family]) for family in families])
    selected = int((adjust(of_family) <= CONSTANTS.level).sum())
    factor = len(families) / max(selected, 1)
    return {family: np.minimum(1.0, adjust(p_by_family[family]) * factor) for family in families}


# --- rung 2: necessary -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Necessity:
    """What happens without a component, against what happens without its matched controls."""

    harm: float  # mean over units of the metric's rise (or fall) when the component is ablated
    excess: float  # harm minus the controls' mean harm
    excess_low: float
    excess_high: float
    control: float  # the controls' mean harm
    n: int
    df: int  # of the interval
    mde: float
    p_units: float
    p_controls: float
    above_all: bool  # above every single control: the guard that makes p_controls mean anything

    @property
    def p(self) -> float:
        """The larger of the two p values, or 1 where the guard fails."""
        return max(self.p_units, self.p_controls) if self.above_all else 1.0


def necessity(
    harm: Array, controls: Array, strata: Sequence[str], *, overlap: float = 1.0, floor: float = CONSTANTS.harm_floor
) -> Necessity:
    """Is the harm of an ablation beyond that of its controls?

    harm: `[unit]`; controls: `[control, unit]`. Over units: t of `harm - mean of controls` against the floor.
    Over controls: t with K - 1 degrees of freedom of the harm as one more draw from the controls; controls without any
    spread decide nothing. overlap: by how much the controls' spread is too small because they share parts.
    """
    excess = estimate(harm - controls.mean(axis=0), strata)
    per_control = controls.mean(axis=1)
    spread = float(per_control.std(ddof=1)) * np.sqrt(1 + 1 / len(per_control)) * overlap
    return Necessity(
        harm=float(harm.mean()),
        excess=float(excess.mean),
        excess_low=float(excess.low),
        excess_high=float(excess.high),
        control=float(per_control.mean()),
        n=excess.n,
        df=excess.df,
        mde=float(excess.mde(floor)),
        p_units=float(excess.p_above(floor)),
        p_controls=float(upper_tail(harm.mean() - per_control.mean(), spread, len(per_control) - 1)) if spread > 0 else 1.0,
        above_all=bool(harm.mean() > per_control.max()),
    )


def harm_alone(harm: Array, strata: Sequence[str], *, floor: float = CONSTANTS.harm_floor) -> Necessity:
    """What is known of a harm `[unit]` without controls: its size, and whether it exceeds the floor (`p_units`)."""
    own = estimate(harm, strata)
    low, high, mde, p = (float(x) for x in (own.low, own.high, own.mde(floor), own.p_above(floor)))
    sizes = {"harm": float(own.mean), "excess": float(own.mean), "excess_low": low, "excess_high": high, "control": 0.0}
    return Necessity(**sizes, n=own.n, df=own.df, mde=mde, p_units=p, p_controls=1.0, above_all=False)


# --- rung 3: selective -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Selectivity:
    """Does the ablation harm little else? A non-inferiority test, not a missing star."""

    elsewhere: float  # nats of harm where the behaviour does not apply
    elsewhere_low: float  # 95 % interval
    elsewhere_high: float
    bound: float  # one-sided 95 % upper bound, which must not exceed the limit
    limit: float
    ratio: float  # harm / harm elsewhere
    ratio_low: float  # bootstrap 5 % bound
    ratio_high: float
    n: int

    @property
    def verdict(self) -> Literal["pass", "fail", "not decided"]:
        """Little harm for sure, and many times less than where the behaviour applies; or for sure not; or neither."""
        least = CONSTANTS.selectivity_ratio
        if self.bound <= self.limit and self.ratio_low >= least:
            return "pass"
        lower_bound = 2 * self.elsewhere - self.bound
        return "fail" if lower_bound > self.limit or self.ratio_high < least else "not decided"


def collateral_limit(controls_elsewhere: Sequence[float] | Array) -> float:
    """How much harm elsewhere counts as little: what an upper quantile of the controls does, or more where they do less."""
    return max(CONSTANTS.collateral_limit, float(np.quantile(controls_elsewhere, CONSTANTS.collateral_quantile)))


def selectivity(
    harm: Array,
    harm_strata: Sequence[str],
    elsewhere: Array,
    elsewhere_strata: Sequence[str],
    controls_elsewhere: Array,
    seed: int,
) -> Selectivity:
    """Compare harm `[unit]` (nats) with harm elsewhere `[unit]`; controls_elsewhere holds one mean per control."""
    c = CONSTANTS
    outside = estimate(elsewhere, elsewhere_strata)
    same_units = list(harm_strata) == list(elsewhere_strata)  # then both are resampled together
    above = bootstrap_means(harm, harm_strata, np.random.default_rng([seed, 0]))
    below = bootstrap_means(elsewhere, elsewhere_strata, np.random.default_rng([seed, 0 if same_units else 1]))
    below = np.maximum(below, c.least_collateral)
    ratio_low, ratio_high = (float(x) for x in np.quantile(above / below, [c.level, 1 - c.level]))
    return Selectivity(
        elsewhere=float(outside.mean),
        elsewhere_low=float(outside.low),
        elsewhere_high=float(outside.high),
        bound=float(outside.bound()),
        limit=collateral_limit(controls_elsewhere),
        ratio=float(harm.mean() / max(elsewhere.mean(), c.least_collateral)),
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        n=outside.n,
    )


def bootstrap_means(values: Array, strata: Sequence[str], rng: np.random.Generator) -> Array:
    """Means of resampled units, drawn within strata (of at least 8 units, else from all): one number per draw."""
    names = np.asarray(strata)
    if min(Counter(strata).values()) < CONSTANTS.stratified_from:
        names = np.full(len(values), "")
    total = np.zeros(CONSTANTS.bootstrap_draws)
    for stratum in np.unique(names):
        units = values[names == stratum]
        drawn = rng.integers(len(units), size=(CONSTANTS.bootstrap_draws, len(units)))
        total += units[drawn].sum(axis=1)
    return total / len(values)
