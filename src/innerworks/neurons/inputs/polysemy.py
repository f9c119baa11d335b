"""On how many different tokens is a neuron strongest, and where in the model are those that know one?

1. *Distinct tokens*: how many different ones (whatever their case, and the blank before) stand at a neuron's eight strongest
   contexts of a half, one per document, on the side of zero where its peak is. One means a detector; eight, that no single token
   is what it wants. That is a description, without a p: random neurons are strongest on several tokens, too, so that no null
   would make a test of it; and it does not say whether the tokens are related (Gurnee et al. 2023, arXiv:2305.01610).
2. *Early share*: how many of the labelled token detectors lie in the first half of the layers. A description, too: neurons of one
   layer read the same stream and are not so many independent witnesses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from innerworks.findings import Finding

HALF = 0.5
SEVERAL = 2  # different tokens


def findings(arrays: Mapping[str, np.ndarray], rows: Sequence[Finding]) -> list[Finding]:
    """Distinct tokens by layer, the share of early neurons with several, and where detectors lie."""
    distinct, there = arrays["distinct"].astype(float), arrays["there"]
    early = there & (np.arange(len(there)) < len(there) / 2)
    found = [
        _described("distinct_tokens", f"L{layer}", distinct[:, layer].mean(axis=1), layer=layer)
        for layer in np.flatnonzero(there).tolist()
    ]
    if early.any():
        found.append(_described("several_tokens", "model", (distinct[:, early] >= SEVERAL).mean(axis=(1, 2)), floor=HALF))
    sites = {one.site: one.layer for one in rows if one.behaviour == "token_detector" and one.rung}
    return [*found, *([_early(int(sum(early[layer] for layer in sites.values())), len(sites))] if sites else [])]


def _described(measure: str, site: str, halves: np.ndarray, *, layer: int | None = None, floor: float = 0.0) -> Finding:
    """A number with its two values on discovery and confirmation as its range: nothing is tested."""
    value = float(halves.mean())
    return Finding(
        **_shape(measure, "share of neurons" if floor else "tokens", floor),
        site=site,
        layer=None if layer is None else int(layer),
        value=value,
        effect=value,
        effect_low=float(halves.min()),
        effect_high=float(halves.max()),
        n=2,
        p=None,
        mde=None,
        note="the range is that of the two halves",
    )


def _early(early: int, labels: int) -> Finding:
    share = early / labels
    return Finding(
        **_shape("early_share", "share of detectors", HALF),
        site="model",
        value=share,
        effect=share,
        effect_low=share,
        effect_high=share,
        n=labels,
        p=None,
        mde=None,
        note=f"{early} of {labels} token detectors lie in the first half of the layers",
    )


def _shape(measure: str, unit: str, floor: float) -> dict[str, Any]:
    shape = {"chapter": "neurons", "behaviour": "polysemantic_neuron", "measure": measure, "material": "text"}
    return {**shape, "unit": unit, "null": 0.0, "null_kind": "none", "floor": floor}
