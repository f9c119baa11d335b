"""Do subword joiners look at the whole word, or only at the piece before? (claim A2).

For each labelled joiner: attention to pieces at least two tokens back, on rows that have such a piece, against the pattern swap,
over confirmation documents; Benjamini-Hochberg over the labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from innerworks.findings import Finding
from innerworks.heads.decide import HeadsByUnit, effect
from innerworks.heads.kinds import KINDS
from innerworks.stats import adjust

FAR = replace(KINDS["subword_joiner"], measure="join_far", also=None)


def findings(table: HeadsByUnit, seen: Sequence[Finding]) -> list[Finding]:
    """One row per labelled joiner."""
    labels = [one for one in seen if one.behaviour == FAR.behaviour and one.measure == "attention" and one.rung >= 1]
    found, floor = effect(table, FAR, "text", "confirmation"), FAR.floors["text"]
    e, at = found.estimate, [(one.layer, one.index) for one in labels]
    if not labels or e.n < 2:
        return []
    p, mde = e.p_above(floor), e.mde(floor)
    q = adjust(np.array([float(p[place]) for place in at]))
    return [
        replace(
            one,
            measure="attention_far",
            value=float(found.value[place]),
            effect=float(e.mean[place]),
            effect_low=float(e.low[place]),
            effect_high=float(e.high[place]),
            null=float(found.null[place]),
            n=e.n,
            df=e.df,
            p=float(p[place]),
            mde=float(mde[place]),
            q=float(each),
            rung=0,
            note="",
        )
        for one, place, each in zip(labels, at, q, strict=True)
    ]
