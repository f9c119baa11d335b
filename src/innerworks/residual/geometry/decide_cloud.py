"""How alike are tokens, what is owed to rogue dimensions, and over how many dimensions do they spread? Pure arithmetic.

The unit is a pair of documents, each document in one pair. With sums of pairs `S_k`, a ratio of two of them has the interval of
its linear part, `R + (S_k - R T_k) / mean T`.
- `mean_cosine`: above the floor? Directions drawn at random would give zero.
- `owed`: which share of it is gone without the rogue dimensions of that layer, less the share gone without as many others; for
  layers with anisotropy and such dimensions, and for all of these together (`model`). Floor: one half, for "largely".
- Told beside: the cosine without them, and with the mean taken off; lengths, ranks, intrinsic dimension.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from innerworks.findings import Finding
from innerworks.model.study import Kept
from innerworks.residual.geometry.cloud import COSINES, PARTS
from innerworks.residual.geometry.decide import interval
from innerworks.stats import CONSTANTS, Array, Estimate, adjust, estimate

#: Twice what untrained models reach: GPT-2 and Llama as they are initialised, 4 layers of 128 dimensions, .09 at most.
COSINE_FLOOR = 0.20
HALF = 0.5


def findings(kept: Kept) -> list[Finding]:
    """Rows of every layer, and one of the model."""
    cosine = kept.arrays["cosine"].astype(np.float64)
    layers = range(cosine.shape[1])
    alike = [_plain(cosine[0, layer]) for layer in layers]
    p = np.array([float(one.p_above(COSINE_FLOOR)) for one in alike])
    q = adjust(p)
    rows = [
        _row("anisotropy", "mean_cosine", layer, alike[layer], floor=COSINE_FLOOR, p=float(p[layer]), q=float(q[layer]))
        for layer in layers
    ]
    told = [layer for layer in layers if q[layer] <= CONSTANTS.level and kept.arrays["left_out"][layer] > 0]
    return [*rows, *_beside(cosine), *_owed(cosine, told), *_shape(kept)]


def _beside(cosine: Array) -> list[Finding]:
    says = {"without": "cosine_without", "centred": "cosine_centred"}
    return [
        _row("anisotropy", measure, layer, _plain(cosine[COSINES.index(name), layer]))
        for name, measure in says.items()
        for layer in range(cosine.shape[1])
    ]


def _owed(cosine: Array, layers: Sequence[int]) -> list[Finding]:
    """The share that is gone without rogue dimensions beyond that gone without as many others."""
    if not layers:
        return []
    every = [*([layer] for layer in layers), list(layers)]
    found = [_share_owed(cosine[:, some].sum(axis=1)) for some in every]
    p = np.array([float(one.p_above(HALF)) for one, _, _ in found])
    q = [*adjust(p[:-1]).tolist(), float(p[-1])]  # the model as a whole is a test of its own
    rows = []
    for some, (one, without, others), one_p, one_q in zip(every, found, p.tolist(), q, strict=True):
        of_model = some is every[-1]
        says = f"{without:.0%} of it gone without them, {others:.0%} without as many others"
        row = _row("anisotropy", "owed", None if of_model else some[0], one, floor=HALF, p=one_p, q=one_q, null=others)
        rows.append(_noted(row, f"{len(some)} layers together; {says}" if of_model else says, value=without))
    return rows


def _share_owed(cosine: Array) -> tuple[Estimate, float, float]:
    whole, without, others = (cosine[COSINES.index(name)] for name in ("all", "without", "without_others"))
    gone, gone_of_others = float((whole - without).sum() / whole.sum()), float((whole - others).sum() / whole.sum())
    return ratio(others - without, whole), gone, gone_of_others


def ratio(part: Array, whole: Array) -> Estimate:
    """The ratio of two sums over units, with the interval of its linear part."""
    value = part.sum() / whole.sum()
    return _plain(value + (part - value * whole) / whole.mean())


# --- length and number of dimensions ------------------------------------------------------------------------------


def _shape(kept: Kept) -> list[Finding]:
    arrays = {name: kept.arrays[name].astype(np.float64) for name in ("dots", "squares", "log_length", "log_ratio")}
    rows = []
    for layer, entropy_rank in enumerate(kept.arrays["entropy_rank"].tolist()):
        length = _plain(arrays["log_length"][layer])
        says = f"{np.exp(float(length.mean)):.1f} long on the geometric mean"
        rows.append(_noted(_row("stream_shape", "log_length", layer, length, unit="log length"), says))
        whole, without = (
            _participation(arrays["squares"][part, layer], arrays["dots"][part, layer]) for part in range(len(PARTS))
        )
        says = f"{float(without.mean):.1f} without its rogue dimensions; {entropy_rank:.1f} by entropy of the sample's spectrum"
        rows.append(_noted(_row("stream_shape", "effective_rank", layer, whole, unit="dimensions"), says))
        rows.append(_row("stream_shape", "intrinsic_dimension", layer, _inverse(arrays["log_ratio"][layer]), unit="dimensions"))
    return rows


def _participation(squares: Array, dots: Array) -> Estimate:
    """`(mean square)² / mean squared dot`, linear in both."""
    square, dot = squares.mean(), dots.mean()
    value = square**2 / dot
    return _plain(value * (1 + 2 * (squares - square) / square - (dots - dot) / dot))


def _inverse(values: Array) -> Estimate:
    mean = values.mean()
    return _plain(1 / mean - (values - mean) / mean**2)


# --- rows --------------------------------------------------------------------------------------------------------


def _plain(values: Array) -> Estimate:
    return estimate(values, [""] * len(values))


def _row(
    behaviour: str,
    measure: str,
    layer: int | None,
    found: Estimate,
    *,
    floor: float = 0.0,
    p: float | None = None,
    q: float | None = None,
    null: float = 0.0,
    unit: str = "cosine",
) -> Finding:
    place: dict[str, Any] = {"site": "model" if layer is None else f"L{layer}", "layer": layer}
    return Finding(
        chapter="residual",
        behaviour=behaviour,
        **place,
        **interval(found),
        measure=measure,
        material="text",
        value=float(found.mean),
        unit="share" if measure == "owed" else unit,
        null=null,
        null_kind="other dimensions" if measure == "owed" else "none",
        floor=floor,
        p=p,
        mde=None if p is None else float(found.mde(floor)),
        q=q,
    )


def _noted(row: Finding, note: str, **changes: Any) -> Finding:
    return replace(row, note=note, **changes)
