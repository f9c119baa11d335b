"""Does a neuron tell the position, or what stands there? A filler in front of generated tokens moves everything on.

1. Sequences of random tokens of the confirmation half are read again behind a filler of other random tokens.
2. For each row of the old sequence there are two predictions by the frozen fit of the position: for where it now stands, and for
   where it stood. By how much is the first the better one, as a share of the neuron's variance on generated text?

What depends on the content (the second copy of a segment always comes late) moves with it, and fails.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.model import Model
from innerworks.model.observe import State
from innerworks.neurons.inputs.design import positions
from innerworks.neurons.inputs.watch import Frozen
from innerworks.sites import Site
from innerworks.text import Reading
from innerworks.text.reading import BATCH, opening_tokens

FILLER = 32  # tokens
LEAST = 8  # a shorter one shows nothing

Neuron = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """Sequences behind a filler, and which of their rows are compared. now, before: the row's place in either text."""

    tokens: Int[Tensor, "sequence seq"]
    now: Int[Tensor, " row"]
    before: Int[Tensor, " row"]


def shifted(model: Model, reading: Reading, *, sequences: int) -> Shifted | None:
    """Prepare confirmation sequences; None where the model's context has no room for a filler."""
    windows = [one for one in reading.windows if reading.units[one.unit].material == "random"]
    texts = [one.tokens for one in windows if reading.units[one.unit].half == "confirmation"][:sequences]
    others = [one.tokens for one in windows if reading.units[one.unit].half == "discovery"][: len(texts)]
    length = min((len(text) for text in texts), default=0)
    filler = min(FILLER, length // 2, (model.anatomy.max_positions or length + FILLER) - length)
    if filler < LEAST or len(others) < len(texts) or not texts:
        return None
    opening = len(opening_tokens(model.tokenizer))
    moved = [
        [*text[:opening], *other[length - filler : length], *text[opening:length]]
        for text, other in zip(texts, others, strict=True)
    ]
    before = torch.arange(max(1, opening), length - filler)  # further on the fit has seen no position
    return Shifted(tokens=torch.tensor(moved), now=before + filler, before=before)


def follows_position(
    model: Model,
    state: State,
    frozen: Frozen,
    candidates: Sequence[Neuron],
    texts: Shifted,
    *,
    step: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "sequence candidate"]:
    """By how much the new place predicts each candidate better than the old one, as a share of its variance."""
    layers = sorted({layer for layer, _ in candidates})
    fit = frozen.fits["generated"]
    at = {"now": positions(texts.now), "before": positions(texts.before)}
    variance = state["squares_generated"] / state["gram_generated"][0, 0].clamp(min=1) - frozen.mean_generated.cpu().square()
    found = np.zeros((len(texts.tokens), len(candidates)), dtype=np.float32)
    for start in range(0, len(texts.tokens), BATCH):
        tokens = texts.tokens[start : start + BATCH].to(model.device)
        run = model.run(tokens, record=[Site(layer=layer, kind="neurons") for layer in layers], logits="none")
        for layer in layers:
            mine = [i for i, (of, _) in enumerate(candidates) if of == layer]
            neurons = torch.tensor([candidates[i][1] for i in mine])
            low, high = (state[name][layer, neurons] for name in ("fixed_low", "fixed_high"))
            a = run.recorded["neurons", layer][:, texts.now.to(model.device)].float().cpu()[..., neurons].clamp(low, high)
            rest = a - frozen.mean_generated[layer].cpu()[neurons]
            weights = fit.weights[layer].cpu()[:, neurons]
            worse, better = ((rest - at[name] @ weights).square().mean(dim=1) for name in ("before", "now"))
            share = (worse - better) / variance[layer, neurons].clamp(min=1e-12)
            found[start : start + BATCH, mine] = share.numpy()
        step()
    return found
