"""Do heads rest on the first token just where their own behaviour has nothing to do?

1. For each label of a kind that needs something to look at, the mass on the first token is averaged over the rows of real text
   where the kind has a target, and over the rows where it has none, in the same documents.
2. The difference, over confirmation documents, is tested against a floor; Benjamini-Hochberg over all such labels.

Xiao et al. 2023, arXiv:2309.17453. It does not say why a head needs to rest, nor
what becomes of the model without the token; what the place of a row alone explains is taken off in `decide.py`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from innerworks.findings import Finding
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import APPLIES, KINDS
from innerworks.sites import head_site
from innerworks.stats import Estimate, adjust, estimate

FLOOR = 0.10  # of attention mass. A sink that only fades with position reaches .06, since rows with targets come later.


def findings(table: HeadsByUnit, seen: Sequence[Finding]) -> list[Finding]:
    """One row per label of a kind that needs something to look at: how much less it rests where it has that."""
    labels = [(one.behaviour, one.layer, one.index) for one in seen if _is_label(one)]
    labels = [label for label in labels if _units(table, KINDS[label[0]].measure).sum() > 1]
    found = [_contrast(table, KINDS[behaviour].measure, layer or 0, head or 0) for behaviour, layer, head in labels]
    q = adjust(np.array([float(one.p_above(FLOOR)) for one, _, _ in found]))
    sinks = {one.site for one in seen if one.behaviour == "first_token" and one.rung >= 1}
    rows = [_row(*label, *one, float(each)) for label, one, each in zip(labels, found, q, strict=True)]
    return [replace(row, note="a labelled sink") if row.site in sinks else row for row in rows]


def _is_label(one: Finding) -> bool:
    wanted = one.rung >= 1 and one.measure == "attention" and one.material == "text"
    return wanted and KINDS[one.behaviour].measure in APPLIES


def _units(table: HeadsByUnit, kind: str) -> NDArray[np.bool_]:
    """Confirmation documents with rows of both sorts."""
    off, at = (table.measured(f"sink_{where}_{kind}", "text", "confirmation") for where in ("off", "at"))
    return off & at


def _contrast(table: HeadsByUnit, kind: str, layer: int, head: int) -> tuple[Estimate, float, float]:
    """Mass on the first token where the kind has nothing to look at, less that where it has; and both."""
    units = _units(table, kind)
    off, at = (table.of_measure(f"sink_{where}_{kind}", units)[:, layer, head] for where in ("off", "at"))
    strata = [str(stratum) for stratum in table.strata[units]]
    return estimate(off - at, strata), float(off.mean()), float(at.mean())


def _row(behaviour: str, layer: int | None, head: int | None, found: Estimate, off: float, at: float, q: float) -> Finding:
    assert layer is not None and head is not None
    return Finding(
        chapter="heads",
        behaviour="attention_sink",
        site=head_site(layer, head),
        target=behaviour,
        layer=layer,
        index=head,
        measure="sink_contrast",
        material="text",
        value=off,
        unit="probability",
        effect=float(found.mean),
        effect_low=float(found.low),
        effect_high=float(found.high),
        n=found.n,
        df=found.df,
        null=at,
        null_kind="rows where the kind applies",
        floor=FLOOR,
        p=float(found.p_above(FLOOR)),
        mde=float(found.mde(FLOOR)),
        q=q,
    )
