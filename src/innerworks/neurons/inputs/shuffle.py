"""Does a neuron tell the token before, or a current token that mostly stands behind it? Documents read in another order.

In text the two go together: nouns stand behind articles, so that a neuron which fires at uncommon nouns can be told from the
article before, and no column says that this token is one of them. So:

1. First windows of confirmation documents, of each stratum in turn, are read again with their tokens shuffled, which leaves what
   there is and how often, and makes the token before independent of the current one.
2. By how much does the frozen fit predict each candidate better with the columns of the token before than without them, as a
   share of the neuron's squares around its mean, on average over these documents?

What knows the current token alone gains nothing there, and fails.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor

from innerworks.model import Model
from innerworks.model.observe import State
from innerworks.model.run import Watch
from innerworks.neurons.inputs.design import Design
from innerworks.neurons.inputs.fits import ask, gains
from innerworks.neurons.inputs.watch import Frozen
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch
from innerworks.text.reading import BATCH, Window, batch_of, opening_tokens

FAMILY = "previous_token"

Neuron = tuple[int, int]


def shuffled(model: Model, reading: Reading, *, documents: int, generator: Generator) -> list[TextBatch]:
    """First windows of confirmation documents, of each stratum in turn, their tokens shuffled behind those that open a text."""
    first = {window.unit: window for window in reversed(reading.windows)}
    by_stratum: dict[str, list[Window]] = defaultdict(list)
    for number, unit in enumerate(reading.units):
        if (unit.material, unit.half) == ("text", "confirmation"):
            by_stratum[unit.stratum].append(first[number])
    groups = list(by_stratum.values())
    turns = sorted((turn, i) for i, group in enumerate(groups) for turn in range(len(group)))
    opening = len(opening_tokens(model.tokenizer))
    chosen = []
    for turn, i in turns[:documents]:
        one = groups[i][turn]
        mixed = generator.permutation(one.tokens[opening:]).tolist()
        chosen.append(replace(one, tokens=(*one.tokens[:opening], *mixed), arcs=()))
    return [batch_of(chosen[start : start + BATCH], "text", "shuffled", "confirmation") for start in range(0, len(chosen), BATCH)]


def follows_the_token_before(
    model: Model,
    design: Design,
    state: State,
    frozen: Frozen,
    candidates: Sequence[Neuron],
    texts: Sequence[TextBatch],
    *,
    step: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "document candidate"]:
    """What the token before explains of each candidate, as a share of its mean squares over documents."""
    layers = sorted({layer for layer, _ in candidates})
    gain, total = (np.zeros((sum(len(batch.units) for batch in texts), len(candidates)), dtype=np.float64) for _ in range(2))
    start = 0
    for batch in texts:
        features, lengths = design.rows(batch.tokens), batch.mask.sum(dim=1).tolist()

        def look(layer: int, activation: Tensor, start: int = start, x: Tensor = features, lengths: list[int] = lengths) -> None:
            mine = [place for place, (of, _) in enumerate(candidates) if of == layer]
            neurons = [candidates[place][1] for place in mine]
            for i, length in enumerate(lengths):
                found = _of_document(frozen, state, layer, x[i, 1:length], activation[i, 1:length].float().cpu())
                gain[start + i, mine], total[start + i, mine] = (values[neurons].numpy() for values in found)

        watch: list[Watch] = [
            (Site(layer=layer, kind="neurons"), lambda x, queries, layer=layer, look=look: look(layer, x)) for layer in layers
        ]
        model.run(batch.tokens.to(model.device), mask=batch.mask.to(model.device), watch=watch, logits="none")
        start += len(batch.units)
        step()
    return (gain / np.maximum(total.mean(axis=0), 1e-30)).astype(np.float32)


def _of_document(
    frozen: Frozen, state: State, layer: int, features: Float[Tensor, "row column"], a: Float[Tensor, "row neuron"]
) -> tuple[Float[Tensor, " neuron"], Float[Tensor, " neuron"]]:
    """The gain, and the squares around the mean."""
    fit = frozen.fits["full"]
    seen = a.clamp(state["fixed_low"][layer], state["fixed_high"][layer]) - frozen.mean[layer]
    gained = gains(fit, layer, ask(fit, features), seen)
    return gained[list(fit.families).index(FAMILY)], seen.square().sum(dim=0)
