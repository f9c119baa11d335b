"""A finding: one measured statement about one place, pair or group. Every table of an atlas is made of them.

Intervals are over documents (or sequences), never tokens. A label is only ever written with its rung of evidence:
1 *seen*, 2 *necessary* (alone or jointly), 3 *selective*; 0 means measured and not labelled.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from innerworks.stats import CONSTANTS, Necessity, Selectivity

if TYPE_CHECKING:
    import polars

#: column -> (polars type, what it says). The order is the order of the columns in `findings.parquet`.
COLUMNS: dict[str, tuple[str, str]] = {
    "chapter": ("String", "heads, neurons, residual, ..."),
    "behaviour": ("String", "the kind of part, one fixed word: previous_token, induction, ..."),
    "site": ("String", "where: L10H7, L11N584, L5, model"),
    "target": ("String", "the second end of a pair, or the members of a group"),
    "layer": ("Int32", "the layer of the site"),
    "index": ("Int32", "the head, neuron or feature within its layer"),
    "measure": ("String", "attention, eigenvalue, direct_effect, harm, ...; all are in `innerworks.show.measures`"),
    "material": ("String", "on what: text (the corpus), random (generated repeats), weights, or prompts: agreement, lists"),
    "value": (
        "Float64",
        "the raw score, before its null is taken off (collateral: how many times the harm is the harm elsewhere)",
    ),
    "unit": ("String", "probability, nats, ..."),
    "effect": ("Float64", "the score minus its null, averaged over units"),
    "effect_low": ("Float64", "lower end of the 95 % interval of the effect"),
    "effect_high": ("Float64", "upper end"),
    "n": ("Int32", "units: documents or sequences"),
    "df": ("Int32", "degrees of freedom of the interval, where it is one of Student's t"),
    "null": ("Float64", "the null's average (harm: of the matched controls; collateral: the limit of little harm)"),
    "null_kind": ("String", "pattern swap, other offset, other column, across words, control heads, ..."),
    "floor": ("Float64", "the effect that must be exceeded, not merely zero (collateral: the ratio that must be reached)"),
    "p": ("Float64", "of: the effect is at most the floor"),
    "mde": ("Float64", "the smallest true effect that this much text would have found (power .9 at p .005)"),
    "q": ("Float64", "after false-discovery control over the study that labels; a label needs q <= .05"),
    "rung": ("Int32", "of the label as a whole: 0 none, 1 seen, 2 necessary, 3 selective"),
    "half": ("String", "discovery or confirmation"),
    "ablation": ("String", "none, mean, resample, zero"),
    "note": ("String", "alone, jointly, or what is missing"),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of `findings.parquet`; the columns are described in `COLUMNS`."""

    chapter: str
    behaviour: str
    site: str
    measure: str
    material: str
    value: float
    unit: str
    effect: float
    effect_low: float
    effect_high: float
    n: int
    null: float
    null_kind: str
    floor: float
    p: float | None
    mde: float | None
    q: float | None = None
    rung: int = 0
    target: str | None = None
    layer: int | None = None
    index: int | None = None
    df: int | None = None
    half: str = "confirmation"
    ablation: str = "none"
    note: str = ""


def frame(findings: Iterable[Finding]) -> "polars.DataFrame":
    """Put findings in a table with the columns and types of `COLUMNS`."""
    import polars as pl

    schema = {name: getattr(pl, kind) for name, (kind, _) in COLUMNS.items()}
    rows = [asdict(finding) for finding in findings]
    return pl.DataFrame({name: [row[name] for row in rows] for name in COLUMNS}, schema=schema)


def against_controls(found: Necessity) -> dict[str, Any]:
    """The columns of rung 2 that come from its test: a harm, and what it is beyond that of controls."""
    return {
        "value": found.harm,
        "effect": found.excess,
        "effect_low": found.excess_low,
        "effect_high": found.excess_high,
        "n": found.n,
        "df": found.df,
        "null": found.control,
        "p": found.p,
        "mde": found.mde,
    }


def collateral(found: Selectivity, *, elsewhere: str, **place: Any) -> Finding:
    """The row of rung 3: what an ablation harms elsewhere, against the limit of little harm; place holds the other columns."""
    return Finding(
        **{"unit": "nats", "ablation": "mean", **place},
        measure="collateral",
        value=found.ratio,
        effect=found.elsewhere,
        effect_low=found.elsewhere_low,
        effect_high=found.elsewhere_high,
        n=found.n,
        null=found.limit,
        null_kind="limit of little harm",
        floor=CONSTANTS.selectivity_ratio,
        p=None,
        mde=None,
        note=joined(
            f"{found.verdict}: harm / harm elsewhere (at least {CONSTANTS.least_collateral}) "
            f"{found.ratio:.1f} [{found.ratio_low:.1f}, {found.ratio_high:.1f}]",
            f"upper 95 % bound {found.bound:.4f}",
            f"metric: {elsewhere}",
        ),
    )


def joined(*notes: str) -> str:
    """Notes of a finding in one line: those that say something, one after the other."""
    return "; ".join(note for note in notes if note)
