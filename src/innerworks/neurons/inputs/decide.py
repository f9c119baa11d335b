"""Which neurons respond to what? From means over documents to labels at rung 1, as pure arithmetic on arrays.

1. Candidates: neurons whose effect on discovery exceeds the floor in every test of the kind (`kinds.py`), the 1,000 largest at
   most; for detectors all that have triggers which twelve documents of confirmation hold.
2. On confirmation each candidate is tested against the floor; with several tests p is the largest (`numbers.py`).
3. False discoveries are controlled over kinds and neurons together (`stats.family_q`).
4. Candidates that twelve units can decide become rows, one for each test. Of all neurons there is one row per kind and test,
   `ceiling`: the largest effect that any of them may have (upper bounds over all together), from which a "there is none" follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from innerworks.findings import Finding
from innerworks.model.study import Kept
from innerworks.neurons.inputs import buckets, dead, polysemy
from innerworks.neurons.inputs.detectors import SHARES, SUMS
from innerworks.neurons.inputs.kinds import AGAIN, COUNTED, KINDS, OVER_TYPES, Kind, Test
from innerworks.neurons.inputs.numbers import Numbers, of_shares
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array, Estimate, estimate, family_q

MOST = 1000  # candidates of a kind
MATERIAL = {
    "full": "text",
    "types": "text",
    OVER_TYPES: "text",
    "generated": "random",
    "shifted": "random",
    "shuffled": "text",
    "triggers": "text",
    "pairs": "text",
}
MEASURE = {"shifted": "shifted", "shuffled": "shuffled", OVER_TYPES: OVER_TYPES}
UNIT = {"triggers": "share", "pairs": "share"}
NULL = {
    "full": "all other features",
    "types": "all other features, other token types",
    OVER_TYPES: "all other features, other token types",
    "generated": "the mean",
    "shifted": "the place before the shift",
    "shuffled": "all other features, tokens shuffled",
    "triggers": "none",
    "pairs": "none",
}

Places = Int[np.ndarray, "candidate 2"]


def candidates(discovery: Sequence[np.ndarray], floors: Sequence[float], *, most: int = MOST) -> Places:
    """Neurons above the floor in every test on discovery, the largest first (by the smallest of its effects over floors)."""
    margin = np.min([one / floor for one, floor in zip(discovery, floors, strict=True)], axis=0)
    margin = np.where(np.isfinite(margin), margin, -np.inf)
    order = np.argsort(-margin, axis=None, kind="stable")[:most]
    places = np.stack(np.unravel_index(order, margin.shape), axis=1)
    return places[margin.flat[order] > 1]


def findings(kept: Kept) -> list[Finding]:
    """Labels and candidates of every kind, ceilings, and what is told of dead and polysemantic neurons."""
    arrays = {name: array if "/" in name else _there(kept, array) for name, array in kept.arrays.items()}
    tested = {kind.behaviour: _tested(kind, arrays, kept.about) for kind in KINDS}
    tested = {name: one for name, one in tested.items() if one is not None}
    p = {name: np.max([numbers.p for numbers in one.tests.values()], axis=0) for name, one in tested.items()}
    dying = dead.candidates(arrays, kept.about)
    q = family_q(p | ({} if dying is None else {"dead_neuron": dying.p}))
    rows = [row for name, one in tested.items() for row in _rows(name, one, q[name])]
    rows += _ceilings(arrays, kept.about)
    rows += dead.findings(arrays, kept.about, dying, q.get("dead_neuron", np.zeros(0)))
    return [*rows, *polysemy.findings(arrays, rows)]


def _there(kept: Kept, array: np.ndarray) -> np.ndarray:
    """Effects of layers without plain feed-forward are nothing, not zero."""
    there = kept.arrays["there"]
    if there.all() or array.ndim < 2 or array.shape[-2] != len(there) or array.dtype.kind != "f":
        return array
    return np.where(there[:, None], array, np.nan)


# --- tests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The candidates of one kind, with the numbers of each of its tests and their floors."""

    places: Places
    tests: Mapping[Test, Numbers]
    floors: Mapping[Test, float]
    notes: Sequence[str]


def _tested(kind: Kind, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Tested | None:
    order = [tuple(test) for test in about["tests"]]
    if all(test[0] in COUNTED for test in kind.tests):
        return _detectors(kind, arrays)
    if any(test in kind.tests and f"{name}/neurons" not in arrays for test, name in AGAIN.items()):
        return None  # without a filler in front, position is not told from what comes late
    picked = [(order.index(test), floor) for test, floor in kind.tests.items() if test in order]
    places = candidates([arrays["discovery"][i] for i, _ in picked], [floor for _, floor in picked])
    tests = {}
    for test, floor in kind.tests.items():
        if test in AGAIN:
            tests[test] = Numbers.of(_read_again(arrays, AGAIN[test], places), floor)
        elif test[0] == OVER_TYPES:
            tests[test] = Numbers.of(_at(buckets.estimate(arrays, about, test[1], floor), places), floor)
        else:
            tests[test] = Numbers.of(_at(_dense(arrays, about, order.index(test)), places), floor)
    return Tested(places=places, tests=tests, floors=kind.tests, notes=[""] * len(places))


def _read_again(arrays: Mapping[str, np.ndarray], name: str, places: Places) -> Estimate:
    measured = {tuple(place): i for i, place in enumerate(arrays[f"{name}/neurons"].tolist())}
    gain = arrays[f"{name}/gain"][:, [measured[tuple(place)] for place in places.tolist()]].astype(np.float64)
    return estimate(gain, [name] * len(gain))


def _dense(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], test: int) -> Estimate:
    mean, se, positive = (arrays[name][test].astype(np.float64) for name in ("mean", "se", "positive"))
    return Estimate(mean=mean, se=se, positive=positive, n=about["n"][test], df=about["df"][test])


def _at(found: Estimate, places: Places) -> Estimate:
    where = tuple(places.T)
    return Estimate(mean=found.mean[where], se=found.se[where], positive=found.positive[where], n=found.n, df=found.df)


def _detectors(kind: Kind, arrays: Mapping[str, np.ndarray]) -> Tested:
    """Shares over the documents that have something to count: as many as there are, for each neuron.

    Those that too few documents can decide are not tried: how many there are says nothing of the shares in them.
    """
    (sort,) = {test[0] for test in kind.tests}
    units = arrays["share_units"][[SHARES.index(test) for test in kind.tests]]
    places = np.argwhere((arrays[sort][..., 0] >= 0) & (units >= CONSTANTS.least_units).all(axis=0))
    where = tuple(places.T)
    tests = {}
    for test, floor in kind.tests.items():
        sums = (arrays[name][SHARES.index(test)][where].astype(np.float64) for name in SUMS)
        tests[test] = of_shares(*sums, floor=floor, least=kind.least)
    count = (arrays[sort][where] >= 0).sum(axis=-1)
    return Tested(places=places, tests=tests, floors=kind.tests, notes=[f"{sort}: {n}" for n in count])


# --- rows --------------------------------------------------------------------------------------------------------


def _rows(behaviour: str, one: Tested, q: Array) -> list[Finding]:
    """Of candidates that there are units enough to decide: of most detectors of rare tokens nothing can be said."""
    rows = []
    enough = np.all([numbers.n >= CONSTANTS.least_units for numbers in one.tests.values()], axis=0)
    for test, numbers in one.tests.items():
        for i in map(int, np.flatnonzero(enough)):
            layer, neuron = one.places[i].tolist()
            place = {"site": str(Site(layer=layer, neuron=neuron)), "layer": layer, "index": neuron}
            rows.append(
                Finding(
                    **_of(behaviour, test, one.floors[test]),
                    **place,
                    value=float(numbers.effect[i]),
                    effect=float(numbers.effect[i]),
                    effect_low=float(numbers.low[i]),
                    effect_high=float(numbers.high[i]),
                    n=int(numbers.n[i]),
                    df=int(numbers.df[i]),
                    p=float(numbers.p[i]),
                    mde=float(numbers.mde[i]),
                    q=float(q[i]),
                    rung=int(q[i] <= CONSTANTS.level),
                    note=one.notes[i],
                )
            )
    return rows


def _of(behaviour: str, test: Test, floor: float) -> dict[str, Any]:
    """What all rows of a test have in common."""
    measure = test[1] if test[0] in COUNTED else MEASURE.get(test[0], "variance_explained")
    unit = UNIT.get(test[0], "share of variance")
    shape = {"measure": measure, "material": MATERIAL[test[0]], "unit": unit, "null_kind": NULL[test[0]]}
    return {"chapter": "neurons", "behaviour": behaviour, "null": 0.0, "floor": floor, **shape}


def _ceilings(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> list[Finding]:
    order = [tuple(test) for test in about["tests"]]
    rows = []
    for kind in KINDS:
        for test, floor in kind.tests.items():
            if test in order:
                rows.append(_ceiling(kind.behaviour, test, floor, _dense(arrays, about, order.index(test))))
    return [row for row in rows if row is not None]


def _ceiling(behaviour: str, test: Test, floor: float, found: Estimate) -> Finding | None:
    """The largest effect that any of the neurons may have, and what nine in ten of them would have shown."""
    count = int(np.isfinite(found.mean).sum())
    if not count or found.n < 2:
        return None
    bound = found.bound(count)
    layer, neuron = (int(x) for x in np.unravel_index(int(np.nanargmax(bound)), bound.shape))
    effect = float(found.mean[layer, neuron])
    return Finding(
        **{**_of(behaviour, test, floor), "measure": "ceiling"},
        site="model",
        target=str(Site(layer=layer, neuron=neuron)),
        value=effect,
        effect=effect,
        effect_low=float(found.low[layer, neuron]),
        effect_high=float(bound[layer, neuron]),
        n=found.n,
        df=found.df,
        p=None,
        mde=float(np.nanquantile(found.mde(floor), 0.9)),
        note=f"over all {count:,} neurons",
    )
