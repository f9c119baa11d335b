"""Which dimensions are rogue, and which activations massive? From sums over documents to findings, as pure arithmetic.

1. `robust_z` (rogue_dimension): on confirmation documents, the robust z of a dimension on ordinary tokens less that of the
   furthest direction drawn at random exceeds the floor. Neither first nor massive tokens are counted.
2. `first_token_ratio` (massive_dimension): the value at the first token is more than a hundred times the typical size of a
   dimension on ordinary tokens, and ten times its own there. Told apart from 1: a dimension may be either, both, or neither.
3. False discoveries are controlled over the two questions and all candidates (`stats.family_q`). Beside them stands one row for
   each question that bounds every other dimension (`ceiling`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from innerworks.findings import Finding
from innerworks.model.study import Kept
from innerworks.residual.geometry.choose import FLOORS, of_layer
from innerworks.residual.geometry.removal import Stretch
from innerworks.residual.geometry.watch import SORTS
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Estimate, family_q

BEHAVIOURS = {"rogue": "rogue_dimension", "massive": "massive_dimension"}
MEASURES = {"rogue": "robust_z", "massive": "first_token_ratio"}
UNITS = {"rogue": "spreads", "massive": "log ratio"}
Place = tuple[int, int]  # layer and dimension


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A candidate, and what came of it."""

    kind: str
    layer: int
    dimension: int
    found: Estimate
    q: float

    @property
    def labelled(self) -> bool:
        """Is it shown?"""
        return self.q <= CONSTANTS.level


def tested(kept: Kept) -> list[Tested]:
    """Every candidate of either question."""
    units, found, p = kept.arrays["units"], {}, {}
    for kind in BEHAVIOURS:
        places = [(layer, dimension) for layer, dimension in kept.arrays[f"{kind}/candidates"].tolist()]
        sums = kept.arrays[f"{kind}/sums"]
        found[kind] = {at: of_layer(own, units[:, at[0]]) for at, own in zip(places, sums, strict=True)}
        p[kind] = np.array([float(one.p_above(FLOORS[kind])) for one in found[kind].values()])
    q = family_q(p)
    return [
        Tested(kind=kind, layer=layer, dimension=dimension, found=one, q=float(one_q))
        for kind, some in found.items()
        for ((layer, dimension), one), one_q in zip(some.items(), q[kind], strict=True)
    ]


def rogue(kept: Kept) -> dict[Place, float]:
    """The labelled rogue dimensions of every layer, with their effects."""
    return {(one.layer, one.dimension): float(one.found.mean) for one in tested(kept) if one.kind == "rogue" and one.labelled}


def stretches(labels: dict[Place, float]) -> list[Stretch]:
    """Runs of layers in which the same dimension sticks out furthest, the longest first, with all that stick out there."""
    by_layer = {
        layer: {d: effect for (at, d), effect in labels.items() if at == layer} for layer in sorted({at for at, _ in labels})
    }
    foremost = {layer: max(some, key=lambda d: some[d]) for layer, some in by_layer.items()}
    runs = [
        [layer for _, layer in run]
        for _, run in groupby(enumerate(foremost), key=lambda pair: (foremost[pair[1]], pair[1] - pair[0]))
    ]
    found = [_stretch(run, labels) for run in runs]
    return sorted(found, key=lambda one: (-len(one.layers), one.first))


def _stretch(layers: Sequence[int], labels: dict[Place, float]) -> Stretch:
    effects: dict[int, float] = {}
    for (layer, dimension), effect in labels.items():
        if layer in layers:
            effects[dimension] = effects.get(dimension, 0.0) + effect
    strongest = sorted(effects, key=lambda d: -effects[d])[: CONSTANTS.joint_members]
    return Stretch(dimensions=tuple(strongest), first=layers[0], last=layers[-1])


# --- rows --------------------------------------------------------------------------------------------------------


def findings(kept: Kept) -> list[Finding]:
    """Candidates, bounds, and how many tokens are massive."""
    return [*(_row(kept, one) for one in tested(kept)), *_ceilings(kept), *_massive_tokens(kept)]


def at_dimension(layer: int, dimension: int) -> dict[str, Any]:
    """Where a row about a dimension is from."""
    return {"chapter": "residual", "site": str(Site(layer=layer, dimension=dimension)), "layer": layer, "index": dimension}


def interval(found: Estimate) -> dict[str, Any]:
    """The columns of an estimate."""
    numbers = {"effect": float(found.mean), "effect_low": float(found.low), "effect_high": float(found.high)}
    return {**numbers, "n": found.n, "df": found.df}


def _row(kept: Kept, one: Tested) -> Finding:
    at, floor = (one.layer, one.dimension), FLOORS[one.kind]
    z, everywhere = float(kept.arrays["z"][at]), float(kept.arrays["z_everywhere"][at])
    is_rogue = one.kind == "rogue"
    says = f"{everywhere:.1f} with first and massive tokens" if is_rogue else f"robust z on ordinary tokens {z:.1f}"
    return Finding(
        **at_dimension(*at),
        **interval(one.found),
        behaviour=BEHAVIOURS[one.kind],
        measure=MEASURES[one.kind],
        material="text",
        value=z if is_rogue else float(one.found.mean),
        unit=UNITS[one.kind],
        null=float(kept.arrays["turned"][one.layer]) if is_rogue else 0.0,
        null_kind="directions at random" if is_rogue else "typical size elsewhere",
        floor=floor,
        p=float(one.found.p_above(floor)),
        mde=float(one.found.mde(floor)),
        q=one.q,
        rung=int(one.labelled),
        note=says,
    )


def _ceilings(kept: Kept) -> list[Finding]:
    rows = []
    for kind in BEHAVIOURS:
        if not kept.arrays[f"{kind}/ceiling"].size:
            continue
        effect, high, seen, n, df = kept.arrays[f"{kind}/ceiling"].tolist()
        rows.append(
            Finding(
                chapter="residual",
                behaviour=BEHAVIOURS[kind],
                site="model",
                measure="ceiling",
                material="text",
                value=effect,
                unit=UNITS[kind],
                effect=effect,
                effect_low=effect,
                effect_high=high,
                n=int(n),
                df=int(df),
                null=0.0,
                null_kind="none",
                floor=FLOORS[kind],
                p=None,
                mde=seen,
            )
        )
    return rows


def _massive_tokens(kept: Kept) -> list[Finding]:
    """The layer with most tokens, other than the first, on which the stream is ten times as long as on others."""
    rows = kept.arrays["rows"]
    first, massive, ordinary = (rows[SORTS.index(name)] for name in SORTS)
    shares = massive / np.maximum(massive + ordinary, 1)
    layer = int(shares.argmax())
    says = (
        f"{int(massive[layer])} of {int((massive + ordinary)[layer])} tokens that are not the first of {int(first[layer])} texts"
    )
    share = float(shares[layer])
    return [
        Finding(
            chapter="residual",
            behaviour="massive_dimension",
            site=f"L{layer}",
            layer=layer,
            measure="massive_tokens",
            material="text",
            value=share,
            unit="share",
            effect=share,
            effect_low=share,
            effect_high=share,
            n=int(first[layer]),
            null=0.0,
            null_kind="none",
            floor=0.0,
            p=None,
            mde=None,
            note=says,
        )
    ]
