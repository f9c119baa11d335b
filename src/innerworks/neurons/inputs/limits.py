"""How far do a neuron's activations reach, but for the rarest? Read off a small sample before the pass.

The activations of trained models have heavy tails: one row in ten thousand can hold half of all squares, and what a fit explains
of squares then says nothing of the other rows. So all regressions are done on *winsorised* activations: those beyond the .1 % and
99.9 % quantiles of the sample are set to these quantiles (Tukey 1962). Peaks, deadness and contexts use them as they are.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model import Model
from innerworks.model.run import Watch
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch
from innerworks.text.reading import Window, batch_of

SAMPLE = 4096  # tokens, about
TAIL = 0.001  # share of rows that are clipped on either side


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of every neuron the quantiles that its activations are clipped to; per layer the median norm of the stream behind it."""

    low: Float[Tensor, "layer neuron"]
    high: Float[Tensor, "layer neuron"]
    stream: Float[Tensor, " layer"]


def sample(reading: Reading) -> list[TextBatch]:
    """First windows of discovery units, of each stratum in turn, until there are tokens enough."""
    by_stratum: dict[tuple[str, str], list[Window]] = defaultdict(list)
    first = {window.unit: window for window in reversed(reading.windows)}
    for number, unit in enumerate(reading.units):
        if unit.half == "discovery":
            by_stratum[unit.material, unit.stratum].append(first[number])
    chosen: dict[tuple[str, str], list[Window]] = defaultdict(list)
    tokens, most = 0, max(len(windows) for windows in by_stratum.values())
    for turn in range(most):
        for key, windows in by_stratum.items():
            if tokens < SAMPLE and turn < len(windows):
                chosen[key].append(windows[turn])
                tokens += len(windows[turn].tokens)
    return [batch_of(windows, material, stratum, "discovery") for (material, stratum), windows in chosen.items()]


def limits(model: Model, batches: Sequence[TextBatch]) -> Limits:
    """Run a sample, and keep of each neuron only its few largest and smallest activations; position 0 is left out."""
    a = model.anatomy
    kept = max(1, round(TAIL * sum(int(batch.mask[:, 1:].sum()) for batch in batches)))
    extremes = torch.full((2, a.layers, a.neurons, kept), float("-inf"))
    norms: dict[int, list[Tensor]] = defaultdict(list)
    for batch in (one.to(model.device) for one in batches):
        rows = batch.mask.clone()
        rows[:, 0] = False

        def look(layer: int, activation: Tensor, rows: Tensor = rows) -> None:
            chosen = activation[rows.to(activation.device)].float()
            for side, values in enumerate((chosen, -chosen)):
                both = torch.cat([extremes[side, layer], values.mT.cpu()], dim=-1)
                extremes[side, layer] = both.topk(kept, dim=-1).values

        def measure(layer: int, stream: Tensor, rows: Tensor = rows) -> None:
            norms[layer].append(stream[rows.to(stream.device)].float().norm(dim=-1).cpu())

        watch: list[Watch] = []
        for layer in range(a.layers):
            watch.append((Site(layer=layer, kind="resid_post"), lambda x, queries, layer=layer: measure(layer, x)))
            if model.lacks("neurons", layer) is None:
                watch.append((Site(layer=layer, kind="neurons"), lambda x, queries, layer=layer: look(layer, x)))
        model.run(batch.tokens, mask=batch.mask, watch=watch, logits="none")
    extremes[extremes.isinf()] = 0.0  # of layers without such neurons
    high, low = extremes[0].amin(dim=-1), -extremes[1].amin(dim=-1)
    stream = torch.stack([torch.cat(norms[layer]).median() for layer in range(a.layers)])
    return Limits(low=low, high=high, stream=stream)
