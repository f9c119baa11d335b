"""Which neurons set the uncertainty of predictions, or move them along token frequencies? From arrays to findings.

1. By the weights: q of all neurons of the layers against shuffled weights (`weigh.py`), with a floor.
2. Rung 1, on confirmation documents: without the neuron, predictions change by more than the floor, and enough of it goes the
   kind's own way (through the scale of the norm; along the frequency direction): `T - past - share * T > 0` over documents,
   where T is the whole change. p is the larger one; false discoveries are controlled over both kinds (`stats.family_q`). The
   label's q is the larger of this and that of the weights: it needs both, and each of the two errors is kept at 5 %.
3. Rung 2, for the labels that were strongest by the screen: what goes the kind's own way, in nats (`T - past`), exceeds by the
   floor what goes that way without each of 20 matched neurons (`stats.necessity`). Not the whole change: a neuron that writes to
   logits directly moves the entropy, too, and is no entropy neuron. q over all labels: of those not tried, p is 1.
4. `ceiling`: for every kind, the largest change that any neuron of these layers may make, by first-order estimates on discovery,
   scaled by the largest ratio of exact to estimated change among those that were ablated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from innerworks.findings import Finding, against_controls, joined
from innerworks.model.matched import Place, how_alike
from innerworks.model.study import Kept, Units
from innerworks.neurons.necessity import Tried, decided
from innerworks.neurons.outputs.kinds import FLOOR, KINDS, Kind
from innerworks.neurons.outputs.weigh import p_of
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array, Estimate, Necessity, adjust, estimate, family_q, upper_tail

SHUFFLED = "shuffled weights"


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One neuron that was ablated for a kind. change: the whole change per document; way: the share that goes the kind's way."""

    kind: Kind
    neuron: Place
    change: Estimate
    way: Estimate  # the share, with the error of a ratio
    p_way: float
    p: float
    weight: float
    null: float
    q_weights: float
    q: float = 1.0


def tested(kept: Kept, units: Units) -> list[Tested]:
    """Every neuron that was ablated, for its kind, with the q of its label."""
    found = {kind.name: _tested(kind, kept, strata_of(kept, units)) for kind in KINDS}
    q = family_q({name: np.array([one.p for one in some]) for name, some in found.items()})
    return [
        Tested(**{**one.__dict__, "q": max(float(own), one.q_weights)})
        for name, some in found.items()
        for one, own in zip(some, q[name], strict=True)
    ]


def in_turn(kept: Kept, units: Units) -> list[Tested]:
    """The labels, those first that the screen of discovery documents says move predictions most (nats, for either kind)."""
    guesses = {kind.name: kept.arrays[f"screen/{kind.quantity}"] for kind in KINDS}
    layers = kept.arrays["layers"].tolist()
    found = [one for one in tested(kept, units) if one.q <= CONSTANTS.level]
    return sorted(found, key=lambda one: -guesses[one.kind.name][layers.index(one.neuron[0]), one.neuron[1]])


def strata_of(kept: Kept, units: Units) -> list[str]:
    """The strata of the confirmation documents, in the order of the arrays."""
    return [str(units[number][1]) for number in kept.arrays["confirmation"].tolist()]


def weight_q(kept: Kept, kind: Kind) -> Array:
    """The q of every neuron by its weights, `[layer, neuron]`; 1 where the score does not exceed its floor."""
    score, null = _weights(kept, kind)
    p = np.where(score - null.mean() > kind.weight_floor, p_of(score, null), 1.0)
    return adjust(p.ravel()).reshape(score.shape)


def _weights(kept: Kept, kind: Kind) -> tuple[Array, Array]:
    """The scores of all neurons, and of shuffled weights."""
    return kept.arrays[kind.weights].astype(np.float64), kept.arrays[f"{kind.weights}_null"].astype(np.float64)


def _tested(kind: Kind, kept: Kept, strata: Sequence[str]) -> list[Tested]:
    arrays, layers = kept.arrays, kept.arrays["layers"].tolist()
    by_weights, (score, null) = weight_q(kept, kind), _weights(kept, kind)
    found = []
    for number, (layer, neuron) in enumerate(arrays[f"{kind.name}/neurons"].tolist()):
        change, of, past = (
            arrays[f"{kind.name}/{name}"][number].astype(np.float64) for name in (kind.quantity, kind.of, kind.past)
        )
        whole, at = estimate(change, strata), (layers.index(layer), neuron)
        beyond = estimate((1 - kind.share) * of - past, strata)
        p_way = float(upper_tail(beyond.mean, beyond.se, beyond.df))
        found.append(
            Tested(
                kind=kind,
                neuron=(layer, neuron),
                change=whole,
                way=_share(of, past, strata),
                p_way=p_way,
                p=max(float(whole.p_above(FLOOR)), p_way),
                weight=float(score[at]),
                null=float(null.mean()),
                q_weights=float(by_weights[at]),
            )
        )
    return found


def _share(of: Array, past: Array, strata: Sequence[str]) -> Estimate:
    """`1 - mean(past) / mean(of)` over documents, with the standard error of a ratio."""
    mean = max(float(of.mean()), 1e-12)
    share = 1 - float(past.mean()) / mean
    error = estimate(((1 - share) * of - past) / mean, strata)
    return Estimate(mean=np.asarray(share), se=error.se, n=error.n, df=error.df, positive=error.positive)


# --- rows ----------------------------------------------------------------------------------------------------------


def findings(kept: Kept, units: Units) -> list[Finding]:
    """All rows about neurons that shape the whole prediction."""
    if "layers" not in kept.arrays:
        return []
    every = tested(kept, units)
    labels = [i for i, one in enumerate(every) if one.q <= CONSTANTS.level]
    held = _against_controls(kept, units, [every[i] for i in labels])
    necessary = {labels[i]: found for i, found in held.items()}
    p = [necessary[i].p if i in necessary else 1.0 for i in labels]
    q = dict(zip(labels, adjust(np.array(p)).tolist(), strict=True))
    rows: list[Finding] = []
    for i, one in enumerate(every):
        rung = (1 + (q.get(i, 1.0) <= CONSTANTS.level)) if i in labels else 0
        rows += _rows(one, rung, kept, "" if rung != 1 else "rung 2 tried, not shown" if i in necessary else "rung 2 not tried")
        if i in necessary:
            rows.append(_necessity_row(one, necessary[i], q[i], kept))
    return [*rows, *(_ceiling(kind, kept) for kind in KINDS)]


def _against_controls(kept: Kept, units: Units, labels: Sequence[Tested]) -> dict[int, Necessity]:
    strata, found = strata_of(kept, units), {}
    for i, one in enumerate(labels):
        name = control_name(one.kind, one.neuron)
        if f"{name}/controls" in kept.arrays:
            found[i] = decided(tried(kept.arrays, one.kind, one.neuron), strata, floor=FLOOR)
    return found


def control_name(kind: Kind, neuron: Place) -> str:
    """Under which name the controls of a neuron are kept."""
    return f"{kind.name}/{Site(layer=neuron[0], neuron=neuron[1])}"


def tried(arrays: Mapping[str, np.ndarray], kind: Kind, neuron: Place) -> Tried:
    """A neuron and its controls, as an atlas keeps them."""
    name, neurons = control_name(kind, neuron), arrays[f"{kind.name}/neurons"].tolist()
    return Tried(
        neuron=neuron,
        harm=own_way(arrays, kind)[neurons.index(list(neuron))],
        controls=tuple((layer, part) for layer, part in arrays[f"{name}/controls"].tolist()),
        by_control=arrays[f"{name}/by_control"].astype(np.float64),
    )


def own_way(arrays: Mapping[str, np.ndarray], kind: Kind) -> Float[np.ndarray, "neuron unit"]:
    """How much of each document's change goes the kind's own way, in nats."""
    of, past = (arrays[f"{kind.name}/{name}"].astype(np.float64) for name in (kind.of, kind.past))
    return of - past


def _place(one: Tested) -> dict[str, Any]:
    layer, neuron = one.neuron
    where = {"chapter": "neurons", "behaviour": one.kind.name, "site": str(Site(layer=layer, neuron=neuron))}
    return {**where, "layer": layer, "index": neuron, "material": "text", "unit": "nats"}


def _interval(found: Estimate) -> dict[str, Any]:
    numbers = {"effect": float(found.mean), "effect_low": float(found.low), "effect_high": float(found.high)}
    return {**numbers, "n": found.n, "df": found.df}


def _rows(one: Tested, rung: int, kept: Kept, note: str) -> list[Finding]:
    """What a label rests on: the change, the share of it that goes the kind's way, the weights."""
    place, kind, at = _place(one), one.kind, (kept.arrays["layers"].tolist().index(one.neuron[0]), one.neuron[1])
    lacking = joined(
        "not by its weights" if one.q_weights > CONSTANTS.level else "",
        "change not shown to exceed the floor" if float(one.change.p_above(FLOOR)) > CONSTANTS.level else "",
        f"not enough of it {kind.in_words}" if one.p_way > CONSTANTS.level else "",
    )
    change = Finding(
        **{**place, **_interval(one.change), "measure": kind.effect, "ablation": "mean", "value": float(one.change.mean)},
        null=0.0,
        null_kind="none",
        floor=FLOOR,
        p=one.p,
        mde=float(one.change.mde(FLOOR)),
        q=one.q,
        rung=rung,
        note=joined(lacking, note),
    )
    way = Finding(
        **{**place, **_interval(one.way), "measure": kind.way, "ablation": "mean", "unit": "share", "value": float(one.way.mean)},
        null=0.0,
        null_kind="the rest of the change",
        floor=kind.share,
        p=float(upper_tail(one.way.mean - kind.share, one.way.se, one.way.df)),
        mde=float(one.way.mde(kind.share)),
        rung=rung,
    )
    effect = one.weight - one.null
    norm, variance = float(kept.arrays["norm"][at]), float(kept.arrays["logit_variance"][at])
    largest = float((kept.arrays["norm"] < norm).mean())
    weights = Finding(
        **{**place, "measure": kind.scored, "material": "weights", "unit": "share" if kind.name == "entropy" else "cosine"},
        value=one.weight,
        effect=effect,
        effect_low=effect,
        effect_high=effect,
        n=1,
        null=one.null,
        null_kind=SHUFFLED,
        floor=kind.weight_floor,
        p=float(p_of(np.array([one.weight]), _weights(kept, kind)[1])[0]),
        mde=None,
        q=one.q_weights,
        rung=rung,
        note=f"norm {norm:.2f}, larger than {largest:.0%} of these layers; logit variance {variance:.2g}",
    )
    return [change, way, weights]


def _necessity_row(one: Tested, found: Necessity, q: float, kept: Kept) -> Finding:
    held = tried(kept.arrays, one.kind, one.neuron)
    assert held.by_control is not None
    turned = len(held.by_control) - len(held.controls)
    return Finding(
        **{**_place(one), "measure": "harm", "ablation": "mean"},
        **against_controls(found),
        null_kind="control neurons",
        floor=FLOOR,
        q=q,
        note=joined(
            f"metric: {one.kind.of} that changes {one.kind.in_words}",
            how_alike(one.neuron, held.controls, kept.arrays["removed"].astype(np.float64), of=len(held.by_control)),
            f"{turned} of {len(held.by_control)} controls are as much in a random direction, for want of neurons"
            if turned
            else "",
            "" if found.above_all else "a control changes as much",
        ),
    )


def _ceiling(kind: Kind, kept: Kept) -> Finding:
    """The largest change that any neuron of these layers may make, chosen or not."""
    factor, said = _agreement(kind, kept)
    mean, se = (factor * kept.arrays[f"screen/{kind.quantity}{end}"].astype(np.float64).ravel() for end in ("", "_se"))
    of = Estimate(mean=mean, se=se, n=kept.about["screen"]["documents"], df=kept.about["screen"]["df"], positive=mean)
    high = of.bound(of.mean.size)
    most = int(np.argmax(high))
    return Finding(
        chapter="neurons",
        behaviour=kind.name,
        site="model",
        measure="ceiling",
        material="text",
        half="discovery",
        unit="nats",
        value=float(of.mean[most]),
        effect=float(of.mean[most]),
        effect_low=float(of.low[most]),
        effect_high=float(high[most]),
        n=of.n,
        df=of.df,
        null=0.0,
        null_kind="none",
        floor=FLOOR,
        p=None,
        mde=float(np.quantile(of.mde(FLOOR), 0.9)),
        note=joined(f"{of.mean.size} neurons of the last {len(kept.arrays['layers'])} layers, by first-order estimates", said),
    )


def _agreement(kind: Kind, kept: Kept) -> tuple[float, str]:
    """By how much estimates may be too small, and how they went with exact changes."""
    neurons, layers = kept.arrays[f"{kind.name}/neurons"].tolist(), kept.arrays["layers"].tolist()
    guess = kept.arrays[f"screen/{kind.quantity}"]
    estimated = np.array([guess[layers.index(layer), neuron] for layer, neuron in neurons])
    exact = kept.arrays[f"{kind.name}/{kind.quantity}"].mean(axis=1) if neurons else np.zeros(0)
    if len(neurons) < 2 or min(estimated.min(), estimated.std(), exact.std()) <= 0:
        return 1.0, ""
    factor = max(1.0, float((exact / estimated).max()))
    return factor, f"correlation with exact changes {np.corrcoef(estimated, exact)[0, 1]:.2f}, scaled by {factor:.2f}"
