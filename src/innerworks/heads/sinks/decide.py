"""Sinks in full, from sums by document to findings, as pure arithmetic. All on confirmation documents.

- `value_norm` (every head): the logarithm of how much shorter what is read at the first token is than at others. The floor is
  log 2: less than half as long. One more row, for the model, averages the heads that are labelled sinks.
- `norm_ratio` (every layer): the logarithm of how much longer the stream is at the first token than at others. The floor is
  log 10; massive activations are hundreds of times the median.
- `sink_beyond_position` (each label that `contrast.py` has a row for): how much less the head rests where its label has something
  to look at, less the same under other documents' patterns.

Floors were fixed before any model was seen, but for that of the contrast: it was .05, and was raised to .10 when a sink that
looks at nothing was seen to reach .06 by position alone. Benjamini-Hochberg within each measure (value norms: over labelled
sinks).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from innerworks.findings import Finding
from innerworks.heads.kinds import APPLIES, KINDS
from innerworks.heads.sinks.contrast import FLOOR
from innerworks.heads.sinks.watch import AT, OFF, OWN, SWAPPED
from innerworks.model.study import Units
from innerworks.sites import head_site
from innerworks.stats import Array, Estimate, adjust, estimate

SHORTER = float(np.log(2.0))  # less than half as long
LONGER = float(np.log(10.0))  # ten times as long
SINK = "a labelled sink"
Arrays = Mapping[str, np.ndarray]


def findings(arrays: Arrays, units: Units, before: Sequence[Finding]) -> list[Finding]:
    """Value norms, stream norms, and contrasts beyond position."""
    read = (arrays["windows"] > 0) & np.array([unit[2:] == ("text", "confirmation") for unit in map(tuple, units)])
    if read.sum() < 2:
        return []
    strata = np.array([unit[1] for unit in units])
    sinks = {one.site for one in before if one.behaviour == "first_token" and one.measure == "attention" and one.rung >= 1}
    names = strata[read].tolist()
    return [
        *(_value_rows(arrays, read, names, sinks) if arrays["value"].any() else []),
        *_stream_rows(arrays, read, names),
        *_beyond_position(arrays, units, before),
    ]


def _value_rows(arrays: Arrays, read: Bool[np.ndarray, " unit"], strata: list[str], sinks: set[str]) -> list[Finding]:
    first, others = _logarithms(arrays, "value", read)
    shorter = others - first
    heads = list(np.ndindex(*shorter.shape[1:]))
    found = estimate(shorter, strata)
    rows = [_length_row(found, at, first, SHORTER, "value_norm", site=head_site(*at), layer=at[0], index=at[1]) for at in heads]
    labelled = [row for row in rows if row.site in sinks]
    q = dict(zip((row.site for row in labelled), adjust(np.array([row.p for row in labelled])).tolist(), strict=True))
    rows = [replace(row, q=q[row.site], note=SINK) if row.site in q else row for row in rows]
    if sinks:
        chosen = np.array([head_site(*at) in sinks for at in heads]).reshape(shorter.shape[1:])
        mean = estimate(shorter[:, chosen].mean(axis=1), strata)
        whole = _length_row(mean, (), first[:, chosen].mean(axis=1), SHORTER, "value_norm", site="model")
        rows.append(replace(whole, note=f"mean of {len(sinks)} labelled sinks"))
    return rows


def _stream_rows(arrays: Arrays, read: Bool[np.ndarray, " unit"], strata: list[str]) -> list[Finding]:
    first, others = _logarithms(arrays, "stream", read)
    found = estimate(first - others, strata)
    layers = range(first.shape[1])
    rows = [_length_row(found, (at,), first, LONGER, "norm_ratio", site=f"L{at}", layer=at) for at in layers]
    q = adjust(np.array([row.p for row in rows])).tolist()
    return [replace(row, behaviour="massive_activation", q=each) for row, each in zip(rows, q, strict=True)]


def _logarithms(arrays: Arrays, name: str, read: Bool[np.ndarray, " unit"]) -> tuple[Array, Array]:
    """At the first token and elsewhere, averaged over the windows of each unit."""
    sums = arrays[name][read].astype(np.float64)
    mean = sums / arrays["windows"][read].reshape(-1, *[1] * (sums.ndim - 1))
    return mean[:, 0], mean[:, 1]


def _length_row(found: Estimate, at: tuple[int, ...], first: Array, floor: float, measure: str, **place: Any) -> Finding:
    """value, null: the (geometric mean) length at the first token and elsewhere."""
    log_first = float(first.mean(axis=0)[at])
    gap = float(found.mean[at])
    return Finding(
        chapter="heads",
        behaviour="attention_sink",
        **place,
        measure=measure,
        material="text",
        value=float(np.exp(log_first)),
        unit="log ratio",
        effect=gap,
        effect_low=float(found.low[at]),
        effect_high=float(found.high[at]),
        n=found.n,
        df=found.df,
        null=float(np.exp(log_first + gap if measure == "value_norm" else log_first - gap)),
        null_kind="median of other positions",
        floor=floor,
        p=float(found.p_above(floor)[at]),
        mde=float(found.mde(floor)[at]),
    )


def _beyond_position(arrays: Arrays, units: Units, before: Sequence[Finding]) -> list[Finding]:
    labels = [one for one in before if one.measure == "sink_contrast"]
    rows = [row for one in labels if (row := _beyond(arrays, units, one)) is not None]
    q = adjust(np.array([row.p for row in rows])).tolist()
    return [replace(row, q=each) for row, each in zip(rows, q, strict=True)]


def _beyond(arrays: Arrays, units: Units, label: Finding) -> Finding | None:
    """One label: its contrast less that of the same rows under other documents' patterns; None where hardly a unit has both."""
    assert label.target is not None
    kind, head = APPLIES.index(KINDS[label.target].measure), (label.layer, label.index)
    counts = arrays["rest_rows"][:, kind].astype(np.float64)
    halves = np.array([unit[3] == "confirmation" for unit in units])
    use = halves & (counts > 0).all(axis=1)
    if use.sum() < 2:
        return None
    mass = arrays["rest"][use][:, :, kind, :, head[0], head[1]].astype(np.float64) / counts[use][:, None]
    own, swapped = (mass[:, side, OFF] - mass[:, side, AT] for side in (OWN, SWAPPED))
    found = estimate(own - swapped, [str(unit[1]) for unit, one in zip(units, use, strict=True) if one])
    return replace(
        label,
        measure="sink_beyond_position",
        value=float(own.mean()),
        effect=float(found.mean),
        effect_low=float(found.low),
        effect_high=float(found.high),
        n=found.n,
        df=found.df,
        null=float(swapped.mean()),
        null_kind="pattern swap",
        floor=FLOOR,
        p=float(found.p_above(FLOOR)),
        mde=float(found.mde(FLOOR)),
        q=None,
    )
