"""Which dimensions are tested, on what, and what bounds all the others? From the sums of the pass to what an atlas keeps.

Candidates exceed their floor on the discovery half, by two standard errors. Of them the sums over confirmation documents are
kept; of all others one row per question, with the largest bound that holds for every dimension of every layer at once.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from innerworks.model.observe import State, numpy
from innerworks.residual.geometry.sizes import robust_z
from innerworks.residual.geometry.watch import HALVES, KINDS, ORDINARY, SUMS
from innerworks.stats import CONSTANTS, Estimate, estimate_from_sums

#: What a dimension must exceed. `rogue`: five spreads beyond the furthest of the directions drawn at random; the literature's
#: three (Kovaleva et al. 2021) are reached by chance by one of several hundred. `massive`: a hundred times the typical size, as
#: in Sun et al. 2024, whose activations exceed 100 where the median lies below 1.
FLOORS = {"rogue": 5.0, "massive": float(np.log(100.0))}
DISCOVERY, CONFIRMATION = range(len(HALVES))
Sums = Float[np.ndarray, "sum stratum *place"]


def chosen(state: State) -> dict[str, np.ndarray]:
    """Candidates with their sums, bounds on the others, and how far every dimension sticks out."""
    sums = numpy(state)
    units = sums["units"][CONFIRMATION]
    arrays = {"units": units}
    for kind in KINDS:
        own = np.stack([sums[f"{kind}_{name}"] for name in SUMS])
        candidates = _candidates(own[:, DISCOVERY], sums["units"][DISCOVERY], FLOORS[kind])
        arrays[f"{kind}/candidates"] = candidates
        tested = own[:, CONFIRMATION]
        arrays[f"{kind}/sums"] = np.moveaxis(tested[:, :, candidates[:, 0], candidates[:, 1]], -1, 0)
        arrays[f"{kind}/ceiling"] = _ceiling(tested, units, FLOORS[kind])
    return {**arrays, **_profiles(sums)}


def of_layer(sums: Sums, units: Float[np.ndarray, " stratum"]) -> Estimate:
    """The effect, averaged over the documents of one half."""
    total, squares, positive = sums
    return estimate_from_sums(total, squares, positive, units)


def _candidates(sums: Sums, units: Float[np.ndarray, "stratum layer"], floor: float) -> np.ndarray:
    found = []
    for layer in range(units.shape[1]):
        one = of_layer(sums[:, :, layer], units[:, layer])
        exceeds = (one.mean > floor) & (one.mean > CONSTANTS.candidate_t * one.se)
        found += [(layer, int(dimension)) for dimension in np.flatnonzero(exceeds)]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _ceiling(sums: Sums, units: Float[np.ndarray, "stratum layer"], floor: float) -> np.ndarray:
    """Of all dimensions of all layers: the largest effect, the largest bound, the smallest effect found in nine of ten, n, df.

    Nothing where some layer has fewer than two documents.
    """
    layers, width = sums.shape[2:]
    by_layer = [of_layer(sums[:, :, layer], units[:, layer]) for layer in range(layers)]
    if min(one.n for one in by_layer) < 2:
        return np.zeros(0)
    effect = max(float(one.mean.max()) for one in by_layer)
    bound = max(float(one.bound(layers * width).max()) for one in by_layer)
    seen = float(np.quantile([one.mde(floor) for one in by_layer], 0.9))
    return np.array([effect, bound, seen, min(one.n for one in by_layer), min(one.df for one in by_layer)])


def _profiles(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far each dimension sticks out: on ordinary tokens, averaged over documents, and on all tokens together."""
    documents = np.maximum(sums["units"][CONFIRMATION].sum(axis=0), 1)
    moments, rows = sums["moments"][CONFIRMATION], sums["rows"][CONFIRMATION]
    everywhere = np.sqrt(moments[:, 1].sum(axis=0) / np.maximum(rows.sum(axis=0), 1)[:, None])
    of_sort = np.sqrt(moments[:, 1] / np.maximum(rows, 1)[..., None])
    return {
        "z": (sums["z"][CONFIRMATION] / documents[:, None]).astype(np.float32),
        "turned": (sums["turned"][CONFIRMATION] / documents).astype(np.float32),
        "z_everywhere": np.nan_to_num(robust_z(torch.from_numpy(everywhere)).numpy()).astype(np.float32),
        "sizes": of_sort.astype(np.float32),
        "rows": rows,
    }


def means(state: State) -> Float[torch.Tensor, "layer dimension"]:
    """The mean of every dimension over ordinary tokens of the discovery half."""
    rows = state["rows"][DISCOVERY, ORDINARY].clamp(min=1)
    return (state["moments"][DISCOVERY, ORDINARY, 0] / rows[:, None]).float()
