"""Neurons that shape the whole prediction, as a study of a scan: its uncertainty, and its distance from mere token frequencies.

1. Weigh all neurons of the last two layers (`weigh.py`): those before write what later layers read, rather than predictions.
2. Screen all of them on discovery documents by gradients (`screen.py`).
3. Ablate the most promising on confirmation documents (`effects.py`), then 20 controls (`controls.py`) for the labels that were
   strongest by the screen.
4. Decide (`decide.py`).

What it does not do: ask models without a final norm (nothing to go through), or whose final stream is no sum. A soft cap on
logits breaks the mechanism of entropy neurons, since the cap undoes what a scale does; there all is measured before the cap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.model.matched import Place
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units, units_of
from innerworks.neurons.lacking import lacking
from innerworks.neurons.means import NeuronMeans, NeuronReference, neuron_reference
from innerworks.neurons.outputs import decide
from innerworks.neurons.outputs.controls import controls_of
from innerworks.neurons.outputs.effects import Frequencies, effects
from innerworks.neurons.outputs.frequencies import direction, unigram
from innerworks.neurons.outputs.kinds import KINDS, Kind
from innerworks.neurons.outputs.screen import screened
from innerworks.neurons.outputs.unembedding import real_tokens
from innerworks.neurons.outputs.weigh import weigh
from innerworks.stats import CONSTANTS, Half, estimate
from innerworks.text import TextBatch
from innerworks.text.openings import LEAST_TOKENS, documents


@dataclass(frozen=True, kw_only=True)
class Effort:
    """neurons: of each kind that are ablated. controlled: labels that get 20 controls. tokens, rows: of each document."""

    neurons: int
    controlled: int
    tokens: int
    rows: int


HALVES: tuple[Half, Half] = ("discovery", "confirmation")
EFFORTS = {
    "quick": Effort(neurons=4, controlled=0, tokens=32, rows=8),
    "standard": Effort(neurons=10, controlled=3, tokens=48, rows=8),
    "full": Effort(neurons=40, controlled=20, tokens=128, rows=16),
}
LAYERS = 2  # the last ones


class Outputs:
    """Which neurons set the uncertainty of predictions, or move them along token frequencies?"""

    name = "neuron_outputs"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """The means that ablations put in a neuron's place."""
        return [NeuronMeans()] if refusal(model) is None else []

    def measure(self, given: Given) -> Kept:
        """Weigh, screen, ablate, and ablate controls for what is labelled; goes on from `given.saved`."""
        reason = refusal(given.model)
        if reason is not None:
            return Kept(about={"not measured": reason})
        effort, reference = EFFORTS[given.depth], neuron_reference(given.model, given.states[NeuronMeans.name], "text")
        of = frequencies(given)
        discovery, confirmation = (documents(given.reading, half, tokens=effort.tokens) for half in HALVES)
        if not discovery or not confirmation:
            return Kept(about={"not measured": f"a half has no document of {LEAST_TOKENS} tokens or more"})
        kept = given.saved or _screen(given, effort, discovery, reference, of)
        given.save(kept)
        if "confirmation" not in kept.arrays:
            kept = _ablate(given, effort, confirmation, kept, reference, of)
            given.save(kept)
        return _with_controls(given, effort, confirmation, kept, reference, of)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Changes of predictions, with their rungs."""
        return [*before, *decide.findings(kept, units)]


def last_layers(model: Model) -> list[int]:
    """The layers whose neurons are asked."""
    return list(range(model.anatomy.layers))[-LAYERS:]


def refusal(model: Model) -> str | None:
    """Why a model cannot be asked, or None where it can."""
    if why := lacking(model):
        return why
    if not model.anatomy.sums:
        return "its stream is normed after each addition: what a neuron writes is no part of the final stream"
    return None if model.weights.final_norm is not None else "there is no final norm to go through"


def frequencies(given: Given) -> Frequencies:
    """How frequent tokens are in the text of the discovery half."""
    share = unigram(given.reading, real_tokens(given.model))
    made = (torch.from_numpy(one).float().to(given.model.device) for one in (share, direction(share)))
    return Frequencies(**dict(zip(("share", "direction"), made, strict=True)))


def _screen(given: Given, effort: Effort, batches: Sequence[TextBatch], reference: NeuronReference, of: Frequencies) -> Kept:
    model, layers = given.model, last_layers(given.model)
    weights = weigh(model, layers, of.direction.double().numpy(force=True), seed=given.seed)
    count = given.tally(len(batches), "batches screened")
    found = screened(model, batches, reference.mean, layers, of, rows=effort.rows, step=count)
    units = units_of(given.reading)
    over = {name: estimate(one.astype(np.float64), [units[int(at)][1] for at in _units(batches)]) for name, one in found.items()}
    arrays = {
        **{name: one.astype(np.float32) for name, one in weights.items()},
        **{f"screen/{name}": one.mean.astype(np.float32) for name, one in over.items()},
        **{f"screen/{name}_se": one.se.astype(np.float32) for name, one in over.items()},
        "layers": np.array(layers, dtype=np.int64),
        "spread": reference.spread[layers].astype(np.float32),
        "removed": reference.removed.astype(np.float32),
    }
    softcap = (
        {} if model.softcap is None else {"before the cap": f"logits are capped at {model.softcap}; all this is before that"}
    )
    said = {"documents": over["entropy"].n, "df": over["entropy"].df}
    return Kept(
        arrays=arrays, about={"tokens": effort.tokens, "rows": effort.rows, "seed": given.seed, "screen": said, **softcap}
    )


def candidates(kept: Kept, kind: Kind, most: int) -> list[Place]:
    """The neurons to ablate for a kind: those that its weights pick before the others, and those that move most its way first."""
    layers = kept.arrays["layers"].tolist()
    if kind.name == "entropy":
        moved = kept.arrays["screen/entropy"] - kept.arrays["screen/entropy_frozen"]
    else:
        moved = kept.arrays["spread"] * kept.arrays["along"]
    picked = decide.weight_q(kept, kind) <= CONSTANTS.level
    order = np.lexsort((-moved.ravel(), ~picked.ravel()))[:most]
    return [(layers[at // moved.shape[1]], int(at % moved.shape[1])) for at in order.tolist()]


def _ablate(
    given: Given, effort: Effort, batches: Sequence[TextBatch], kept: Kept, reference: NeuronReference, of: Frequencies
) -> Kept:
    of_kind = {kind: candidates(kept, kind, effort.neurons) for kind in KINDS}
    neurons = sorted({neuron for some in of_kind.values() for neuron in some})
    count = given.tally(len(neurons) * len(batches), "ablations")
    also = [kind.past for kind in KINDS]
    found = effects(given.model, batches, reference.mean, neurons, of, rows=effort.rows, also=also, step=count)
    arrays = {**kept.arrays, "confirmation": _units(batches)}
    for kind, some in of_kind.items():
        at = [neurons.index(one) for one in some]
        arrays[f"{kind.name}/neurons"] = np.array(some, dtype=np.int64).reshape(-1, 2)
        arrays |= {f"{kind.name}/{name}": one[at].astype(np.float32) for name, one in found.items()}
    return replace(kept, arrays=arrays)


def _with_controls(
    given: Given, effort: Effort, batches: Sequence[TextBatch], kept: Kept, reference: NeuronReference, of: Frequencies
) -> Kept:
    """Ablate 20 matched neurons for each of the labels that the screen found strongest; none is a suspect of its kind."""
    labels = decide.in_turn(kept, units_of(given.reading))[: effort.controlled]
    left = [one for one in labels if f"{decide.control_name(one.kind, one.neuron)}/controls" not in kept.arrays]
    count = given.tally(len(left) * CONSTANTS.controls * len(batches), "ablations of controls")
    for one in left:
        kind, name = one.kind, decide.control_name(one.kind, one.neuron)
        some, turned = controls_of(one.neuron, _suspects(kept, kind), reference.removed)
        both = [*some, *turned]
        moved = effects(given.model, batches, reference.mean, both, of, rows=effort.rows, also=(kind.past,), step=count)
        arrays = {
            f"{name}/controls": np.array(some, dtype=np.int64).reshape(-1, 2),
            f"{name}/by_control": (moved[kind.of] - moved[kind.past]).astype(np.float32),
        }
        kept = replace(kept, arrays={**kept.arrays, **arrays})
        given.save(kept)
    return kept


def _suspects(kept: Kept, kind: Kind) -> set[Place]:
    layers = kept.arrays["layers"].tolist()
    picked = {(layers[at], neuron) for at, neuron in np.argwhere(decide.weight_q(kept, kind) <= CONSTANTS.level).tolist()}
    return picked | {(layer, neuron) for one in KINDS for layer, neuron in kept.arrays[f"{one.name}/neurons"].tolist()}


def _units(batches: Sequence[TextBatch]) -> np.ndarray:
    return np.concatenate([batch.units.numpy(force=True) for batch in batches])
