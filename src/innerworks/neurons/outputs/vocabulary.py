"""Which neurons raise or lower a few tokens, and which divide the vocabulary? A study of a scan, by weights and in context.

1. Moments of what neurons write over the vocabulary (`moments.py`) and of shuffled weights. The product of all neurons with all
   tokens is the dearest of a scan: `quick` takes a random sample of every layer, which estimates shares by layer and leaves most
   neurons unasked; `standard` and `full` take all.
2. Candidates by the moments; for those of few tokens, which tokens these are.
3. On confirmation documents, what candidates add where they fire (`firing.py`).
4. Decide (`vocabulary_decide.py`).

Gurnee et al. 2024, arXiv:2401.12181. What it does not do: ask for rung 2. Models whose feed-forward is followed by a norm of
its own are not asked, since that rescales what neurons write.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from innerworks.errors import UsageError
from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units, units_of
from innerworks.neurons.means import NeuronMeans, neuron_reference
from innerworks.neurons.outputs import vocabulary_decide
from innerworks.neurons.outputs.firing import fired
from innerworks.neurons.outputs.moments import MOMENTS, moments, outstanding
from innerworks.neurons.outputs.study import refusal
from innerworks.neurons.outputs.unembedding import Unembedding
from innerworks.stats import estimate
from innerworks.text import TextBatch
from innerworks.text.openings import LEAST_TOKENS, documents


@dataclass(frozen=True, kw_only=True)
class Effort:
    """per_layer: neurons that are weighed, None is all. draws: of shuffled weights. tokens: read of each document.

    With M neurons weighed, at least `20 M / draws` must be alike for the first to pass false-discovery control: 4 of a sample, 47
    of the specimen's 46,080.
    """

    per_layer: int | None
    draws: int
    tokens: int


EFFORTS = {
    "quick": Effort(per_layer=64, draws=10_000, tokens=24),
    "standard": Effort(per_layer=None, draws=20_000, tokens=32),
    "full": Effort(per_layer=None, draws=40_000, tokens=128),
}
TOKENS = 10  # that stand out of a neuron's writing


class Vocabulary:
    """Which neurons raise or lower a few tokens, and which divide the vocabulary?"""

    name = "neuron_vocabulary"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """Means and spreads, which say when a neuron fires."""
        return [NeuronMeans()] if unasked(model) is None else []

    def measure(self, given: Given) -> Kept:
        """Moments of weights, then what candidates add where they fire; goes on from `given.saved`."""
        reason = unasked(given.model)
        if reason is not None:
            return Kept(about={"not measured": reason})
        effort, seen = EFFORTS[given.depth], Unembedding.of(given.model)
        batches = documents(given.reading, "confirmation", tokens=effort.tokens)
        if not batches:
            return Kept(about={"not measured": f"the confirmation half has no document of {LEAST_TOKENS} tokens or more"})
        kept = given.saved or _weigh(given, effort, seen, _sample(given, effort))
        given.save(kept)
        return _named(given, kept if "heavy" in kept.arrays else _read(given, batches, seen, kept))

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """The strongest neurons of each kind, and the share of each layer."""
        return [*before, *vocabulary_decide.findings(kept)]


def unasked(model: Model) -> str | None:
    """Why a model cannot be asked, or None where it can."""
    if why := refusal(model):
        return why
    return "a norm behind the feed-forward rescales what neurons write" if model.adapter.post_norms else None


def _sample(given: Given, effort: Effort) -> Int[np.ndarray, "neuron 2"]:
    """The neurons to weigh, as (layer, index)."""
    a, rng = given.model.anatomy, np.random.default_rng(given.seed)
    per_layer = a.neurons if effort.per_layer is None else min(effort.per_layer, a.neurons)
    some = [(layer, neuron) for layer in range(a.layers) for neuron in np.sort(rng.permutation(a.neurons)[:per_layer])]
    return np.array(some, dtype=np.int64).reshape(-1, 2)


def _weigh(given: Given, effort: Effort, seen: Unembedding, neurons: Int[np.ndarray, "neuron 2"]) -> Kept:
    rng, a = np.random.default_rng([given.seed, 1]), given.model.anatomy
    count = given.tally(a.layers, "layers weighed")
    own, null = ({name: [] for name in MOMENTS} for _ in range(2))
    for layer in range(a.layers):
        written = seen.written(given.model, layer)
        chosen = written[torch.from_numpy(neurons[neurons[:, 0] == layer, 1]).to(written.device)]
        drawn = written[torch.from_numpy(rng.integers(a.neurons, size=-(-effort.draws // a.layers))).to(written.device)]
        shuffled = torch.from_numpy(rng.permuted(drawn.numpy(force=True), axis=1)).to(written)
        both = moments(seen, torch.cat([chosen, shuffled]))
        for name in MOMENTS:
            own[name].append(both[name][: len(chosen)])
            null[name].append(both[name][len(chosen) :])
        count()
    arrays = {name: np.concatenate(parts).astype(np.float32) for name, parts in own.items()}
    arrays |= {f"{name}_null": np.concatenate(parts).astype(np.float32) for name, parts in null.items()}
    arrays["neurons"] = neurons
    how = f"{len(neurons)} of {a.layers * a.neurons} neurons" + (", drawn at random from every layer" if effort.per_layer else "")
    return Kept(arrays=arrays, about={"weighed": how, "tokens": effort.tokens})


def _read(given: Given, batches: Sequence[TextBatch], seen: Unembedding, kept: Kept) -> Kept:
    """What candidates move per unit of activation, and how much of it they add where they fire."""
    heavy, dividing = vocabulary_decide.candidates(kept)
    neurons, spread = kept.arrays["neurons"], seen.gram().float() / seen.tokens
    sign = np.sign(kept.arrays["skew"][heavy])
    tokens, moved = outstanding(seen, _written(given.model, seen, neurons[heavy]), sign.tolist(), most=TOKENS)
    writes = _written(given.model, seen, neurons[dividing])
    apart = ((writes @ spread) * writes).sum(dim=-1).clamp(min=0).sqrt().numpy(force=True)
    reference = neuron_reference(given.model, given.states[NeuronMeans.name], "text")
    count = given.tally(len(batches), "batches read")
    chosen = np.concatenate([heavy, dividing])
    found = fired(given.model, batches, reference, neurons[chosen], step=count)
    units = units_of(given.reading)
    strata = [units[int(at)][1] for batch in batches for at in batch.units]
    signed, size = found.signed[:, : len(heavy)] * moved, found.size[:, len(heavy) :] * apart
    arrays = {
        **kept.arrays,
        "heavy": heavy,
        "dividing": dividing,
        "outstanding": tokens,
        "prediction": over_documents(signed, strata),
        "suppression": over_documents(-signed, strata),
        "partition": over_documents(size, strata),
    }
    return replace(kept, arrays=arrays)


def over_documents(values: Float[np.ndarray, "unit some"], strata: Sequence[str]) -> Float[np.ndarray, "some 5"]:
    """Per neuron, over the documents in which it fires at all: mean, standard error, n, df, share above 0."""
    rows = []
    for one in values.T.astype(np.float64):
        known = ~np.isnan(one)
        found = estimate(one[known], np.array(strata)[known].tolist())
        rows.append((float(found.mean), float(found.se), found.n, found.df, float(found.positive)))
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _written(model: Model, seen: Unembedding, neurons: Int[np.ndarray, "neuron 2"]) -> torch.Tensor:
    found = torch.zeros(len(neurons), model.anatomy.d_model, device=seen.mean.device)
    for layer in sorted(set(neurons[:, 0].tolist())):
        here = neurons[:, 0] == layer
        found[torch.from_numpy(here)] = seen.written(model, layer)[torch.from_numpy(neurons[here, 1]).to(found.device)]
    return found


def _named(given: Given, kept: Kept) -> Kept:
    """The outstanding tokens of the neurons that are shown, as text."""
    try:
        tokenizer = given.model.tokenizer
    except UsageError:
        return kept
    shown = {one.number for one in vocabulary_decide.labels(kept) if one.kind != "partition"}
    at = {int(number): place for place, number in enumerate(kept.arrays["heavy"])}
    words = {
        str(number): [tokenizer.decode([token]) for token in kept.arrays["outstanding"][at[number]].tolist()] for number in shown
    }
    return replace(kept, about={**kept.about, "words": words})
