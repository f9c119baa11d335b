"""Which neurons never fire?

1. A neuron is *dead* if it is exactly zero at every token of the text: on discovery for a candidate, on confirmation for a label.
   That it never fired in n documents shows that it fires in less than one in five of them with `p = .8 ** n` (Voita et al. 2023,
   arXiv:2309.04827). Where no neuron is zero all along there is no dead one for certain: each was seen to fire.
2. Where activations fall below zero (no plain ReLU) and none is exactly zero all along (as in gated ReLU), the question does not
   apply. There the *near-dead* are counted: neurons whose largest write over the text, `max |a| * |w_out|`, is below a thousandth
   of the median norm of the stream behind their layer.

Dead is a word about a text: how many of them fire on random tokens is said beside it. Norms behind the feed-forward (Gemma 2) are
not applied to what is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from innerworks.findings import Finding
from innerworks.neurons.inputs.kinds import DEAD, NEAR_DEAD
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array

TEXT, RANDOM = slice(0, 2), 2  # of `peak [part, side, layer, neuron]`


@dataclass(frozen=True, kw_only=True)
class Dying:
    """Neurons that are exactly zero on discovery, and whether they stay so."""

    places: Int[np.ndarray, "candidate 2"]
    p: Array
    n: int


def candidates(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Dying | None:
    """None where activations can be negative, and no neuron is exactly zero."""
    peak, there = arrays["peak"], arrays["there"][:, None]
    places = np.argwhere((peak[0] == 0).all(axis=0) & there)
    if (peak[:, 1] < 0).any() and not len(places):
        return None
    n = int(about["documents"][1])
    still = (peak[1][(slice(None), *places.T)] == 0).all(axis=0)
    return Dying(places=places, p=np.where(still & (n >= CONSTANTS.least_units), DEAD**n, 1.0), n=n)


def findings(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], dying: Dying | None, q: Array) -> list[Finding]:
    """Dead neurons, and how many there are in each layer; or how many are near-dead."""
    if dying is None:
        return _near_dead(arrays, about)
    peak = arrays["peak"]
    never = (peak[TEXT] == 0).all(axis=(0, 1)) & arrays["there"][:, None]
    silent = never & (peak[RANDOM] == 0).all(axis=0)
    rows = _shares("dead_share", never, silent, arrays, dying.n, "exactly zero at every token of the text")
    for i, (layer, neuron) in enumerate(dying.places.tolist()):
        gone = dying.p[i] < 1
        rows.append(
            Finding(
                **_shape("dead_neuron", "never_fires", DEAD, "share of documents"),
                site=str(Site(layer=layer, neuron=neuron)),
                layer=layer,
                index=neuron,
                value=float(gone),
                effect=float(gone),
                effect_low=float(CONSTANTS.level ** (1 / max(dying.n, 1))) if gone else 0.0,
                effect_high=1.0,
                n=dying.n,
                p=float(dying.p[i]),
                mde=None,
                q=float(q[i]),
                rung=int(q[i] <= CONSTANTS.level),
                note="" if gone else "fires on confirmation",
            )
        )
    return rows


def _near_dead(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> list[Finding]:
    if "written" not in arrays:
        return []
    limit = NEAR_DEAD * arrays["stream"][:, None]
    size = np.abs(arrays["peak"]) * arrays["written"]
    there = arrays["there"][:, None]
    near = (size[TEXT].max(axis=(0, 1)) < limit) & there
    silent = near & (size[RANDOM].max(axis=0) < limit)
    says = f"largest write below {NEAR_DEAD:g} of the median norm of the stream"
    return _shares("near_dead_share", near, silent, arrays, int(about["documents"][1]), says)


def _shares(
    measure: str, here: np.ndarray, silent: np.ndarray, arrays: Mapping[str, np.ndarray], n: int, says: str
) -> list[Finding]:
    """Counts for the model and for every layer that has any."""
    there = arrays["there"]
    places: list[tuple[str, int | None, np.ndarray]] = [("model", None, there)]
    places += [(f"L{layer}", layer, np.arange(len(there)) == layer) for layer in np.flatnonzero(here.any(axis=1)).tolist()]
    rows = []
    for site, layer, mine in places:
        count, of, also = int(here[mine].sum()), int(here[mine].size), int(silent[mine].sum())
        share = count / max(of, 1)
        rows.append(
            Finding(
                **_shape("dead_neuron", measure, 0.0, "share of neurons"),
                site=site,
                layer=layer,
                value=share,
                effect=share,
                effect_low=share,
                effect_high=share,
                n=n,
                p=None,
                mde=None,
                note=f"{count:,} of {of:,}: {says}; {also:,} of them on random tokens, too",
            )
        )
    return rows


def _shape(behaviour: str, measure: str, floor: float, unit: str) -> dict[str, Any]:
    shape = {"chapter": "neurons", "behaviour": behaviour, "measure": measure, "material": "text"}
    return {**shape, "unit": unit, "null": 0.0, "null_kind": "none", "floor": floor}
