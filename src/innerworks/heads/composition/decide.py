"""Which induction heads K-compose with which previous-token heads? From matches per sequence to findings, as pure arithmetic.

1. `k_composition`: the fall of the receiver's match without the sender in its keys, less the mean fall without controls there;
   `stats.necessity`: over sequences and over controls. All senders together are one more row, against groups of controls.
2. `k_composition_share`: the same fall as a share of the match, a ratio of means over sequences (linearised).
3. `q_composition`: as 1, of its queries. `k_over_q`: the fall by keys less the fall by queries: what makes it *K*-composition.
4. `path_patching`: as 1, the sender's output on the path to the receiver's keys taken from another text.
5. False discoveries: Benjamini-Hochberg within each measure, over all receivers and senders.

Rows stand for the receiver (`site`), whose label's rung they show, and name the sender in `target`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from innerworks.findings import Finding, against_controls, joined
from innerworks.heads.composition.measure import key
from innerworks.heads.composition.plan import Plan
from innerworks.heads.composition.written import Sender
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Estimate, Necessity, adjust, estimate, necessity

#: measure -> the effect that must be exceeded, fixed before any model was asked.
FLOORS = {
    # Attention mass on the target. Half of what makes a head an induction head on generated text (.10): the loss of less would
    # hardly cost any head its label.
    "k_composition": 0.05,
    "q_composition": 0.05,
    "k_over_q": 0.05,
    "path_patching": 0.05,
    "k_composition_share": 0.50,  # "most of it"
}
STRATUM = "random"
LEAST_CONTROLS = 10  # rotations have no path of their own, so small models have fewer than 20; as few as these decide


def findings(
    matches: Mapping[str, np.ndarray], plans: Sequence[Plan], *, rungs: Mapping[str, int] | None = None
) -> list[Finding]:
    """One finding per measure, receiver and sender (and all senders of a receiver together).

    rungs: of the receivers' labels by site; those of the plans where none are given.
    """
    rows: list[Finding] = []
    for plan in plans:
        plan = replace(plan, rung=(rungs or {}).get(head_site(*plan.receiver), plan.rung))
        for some in [(one,) for one in plan.senders] + ([plan.senders] if len(plan.senders) > 1 else []):
            rows += _rows(matches, plan, some)
    return _with_q(rows)


def _rows(matches: Mapping[str, np.ndarray], plan: Plan, some: tuple[Sender, ...]) -> list[Finding]:
    clean = _of(matches, key(plan.receiver, "clean"))
    controls = [(one,) for one in plan.controls] if len(some) == 1 else list(plan.groups)
    keys, of_controls = (_falls(matches, plan, "keys", which, clean) for which in ([some], controls))
    queries = _falls(matches, plan, "queries", [some], clean)[0]
    overlap = plan.overlap if len(some) > 1 else 1.0
    rows = [
        _against_controls("k_composition", plan, some, keys[0], of_controls, overlap),
        _against_controls("q_composition", plan, some, queries, _falls(matches, plan, "queries", controls, clean), overlap),
        _row("k_over_q", plan, some, estimate(keys[0] - queries, _strata(clean)), value=keys[0], null=queries, against="queries"),
        _share(plan, some, keys[0], of_controls, clean),
    ]
    if len(some) == 1 and key(plan.receiver, "path", some) in matches:
        patched = [one for one in controls if key(plan.receiver, "path", one) in matches]
        if len(patched) >= 2:
            falls = _falls(matches, plan, "path", patched, clean)
            rows.append(
                _against_controls("path_patching", plan, some, _falls(matches, plan, "path", [some], clean)[0], falls, 1.0)
            )
    return rows


def _of(matches: Mapping[str, np.ndarray], name: str) -> Array:
    return matches[name].astype(np.float64)


def _falls(matches: Mapping[str, np.ndarray], plan: Plan, how: str, which: Sequence[Sequence[Sender]], clean: Array) -> Array:
    """By how much the match falls, `[removal, unit]`."""
    return np.stack([clean - _of(matches, key(plan.receiver, how, some)) for some in which])


def _strata(clean: Array) -> list[str]:
    return [STRATUM] * len(clean)


def _against_controls(
    measure: str, plan: Plan, some: tuple[Sender, ...], fall: Array, controls: Array, overlap: float
) -> Finding:
    found = necessity(fall, controls, _strata(fall), overlap=overlap, floor=FLOORS[measure])
    few = {} if len(controls) >= LEAST_CONTROLS else {"p": 1.0}
    return Finding(
        **{**_place(measure, plan, some), **against_controls(found), **few},
        unit="probability",
        null_kind="control heads" if len(some) == 1 else "control groups",
        ablation="mean" if measure != "path_patching" else "resample",
        note=joined(plan.note, _counted(len(controls)), _few(found.n), _guard(found)),
    )


def _share(plan: Plan, some: tuple[Sender, ...], fall: Array, controls: Array, clean: Array) -> Finding:
    """The fall beyond controls as a share of the match: `sum(fall) / sum(match)`, with the spread of its linear approximation."""
    null = controls.mean(axis=0)
    share = (fall - null).mean() / clean.mean()
    values = share + (fall - null - share * clean) / clean.mean()
    found = estimate(values, _strata(clean))
    return _row(
        "k_composition_share",
        plan,
        some,
        found,
        value=fall / clean.mean(),
        null=null / clean.mean(),
        against="control heads" if len(some) == 1 else "control groups",
        unit="share of the match",
    )


def _row(
    measure: str,
    plan: Plan,
    some: tuple[Sender, ...],
    found: Estimate,
    *,
    value: Array,
    null: Array,
    against: str,
    unit: str = "probability",
) -> Finding:
    floor = FLOORS[measure]
    return Finding(
        **_place(measure, plan, some),
        value=float(value.mean()),
        unit=unit,
        effect=float(found.mean),
        effect_low=float(found.low),
        effect_high=float(found.high),
        n=found.n,
        df=found.df,
        null=float(null.mean()),
        null_kind=against,
        p=float(found.p_above(floor)),
        mde=float(found.mde(floor)),
        ablation="mean",
        note=joined(plan.note if against != "queries" else "", _few(found.n)),
    )


def _place(measure: str, plan: Plan, some: tuple[Sender, ...]) -> dict[str, Any]:
    layer, head = plan.receiver
    return {
        "chapter": "heads",
        "behaviour": "induction",
        "site": head_site(layer, head),
        "layer": layer,
        "index": head,
        "target": ", ".join(head_site(one[0], one[1]) for one in sorted(some)),
        "measure": measure,
        "material": "random",
        "floor": FLOORS[measure],
        "rung": plan.rung,
    }


def _with_q(rows: Sequence[Finding]) -> list[Finding]:
    q: dict[int, float] = {}
    for measure in FLOORS:
        mine = [number for number, row in enumerate(rows) if row.measure == measure]
        adjusted = adjust(np.array([1.0 if (p := rows[number].p) is None else p for number in mine]))
        q |= dict(zip(mine, adjusted.tolist(), strict=True))
    return [replace(row, q=q[number]) for number, row in enumerate(rows)]


def _counted(controls: int) -> str:
    return f"{controls} controls" + ("" if controls >= LEAST_CONTROLS else ": too few to decide")


def _few(n: int) -> str:
    return f"only {n} units: not decided" if n < CONSTANTS.least_units else ""


def _guard(found: Necessity) -> str:
    return "" if found.above_all else "a control's fall is as large"
