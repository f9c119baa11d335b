"""What do the weights of a neuron say about its part in the whole prediction? Two scores, against shuffled weights.

1. `hidden`: the share `||V0 w|| / ||w||` of what a neuron writes that lies in the directions which move logits least
   (`unembedding.py`): what is written there changes the scale of the final norm and hardly anything else.
2. `cosine`: how closely what it does to all logits follows the frequency direction, `|cos(w W_U, v)|`.
3. The null: the same weights with their coordinates shuffled, pooled over neurons, so that norms and outsize values stay and
   only what is written where is lost. (Frequencies shuffled over tokens would be the weaker null: any direction, a random one
   included, follows real frequencies better than those.)
4. Beside them, untested: the norm, and the variance of `cos(w, column)` over the vocabulary, which is small for what is hidden.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model import Model
from innerworks.neurons.outputs.unembedding import Unembedding
from innerworks.stats import Array

SCORES = ("hidden", "cosine")
SPEECHLESS = 1e-4  # of what a write of its size usually does to logits: below, it is rounding
DRAWS_PER_NEURON = 20 * len(SCORES)  # a lone neuron must be able to pass false-discovery control


def weigh(model: Model, layers: Sequence[int], frequency_direction: Array, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Scores of all neurons of some layers, `[layer, neuron]`, and of shuffled weights, `[draw]`, as `NAME_null`."""
    seen = Unembedding.of(model)
    gram = seen.gram()
    unit, mean = seen.gram(unit=True).float() / seen.tokens, _mean_unit_column(seen)
    toward = seen.toward(torch.from_numpy(frequency_direction).float())
    written = torch.stack([seen.written(model, layer) for layer in layers])
    hidden, gram = seen.hidden(gram), gram.float()
    found = {name: one.numpy(force=True) for name, one in _scores(written, hidden, gram, toward).items()}
    normed = torch.nn.functional.normalize(written, dim=-1)
    found["norm"] = written.norm(dim=-1).numpy(force=True)
    found["along"] = (written @ toward).abs().numpy(force=True)  # how far a unit of activation moves logits along v
    found["logit_variance"] = (((normed @ unit) * normed).sum(dim=-1) - (normed @ mean) ** 2).numpy(force=True)
    rng, flat = np.random.default_rng(seed), written.flatten(0, 1)
    nulls = [_scores(_shuffled(flat, rng), hidden, gram, toward) for _ in range(DRAWS_PER_NEURON)]
    found |= {f"{name}_null": torch.cat([one[name] for one in nulls]).numpy(force=True) for name in SCORES}
    return found


def p_of(score: Array, null: Array) -> Array:
    """How often do shuffled weights score as high? `(1 + #{null >= score}) / (1 + #null)`."""
    ordered = np.sort(null)
    above = len(ordered) - np.searchsorted(ordered, score, side="left")
    return (1 + above) / (1 + len(ordered))


def _scores(
    written: Float[Tensor, "*some d_model"],
    hidden: Float[Tensor, "hidden d_model"],
    gram: Float[Tensor, "d_model d_model"],
    toward: Float[Tensor, " d_model"],
) -> dict[str, Float[Tensor, "*some"]]:
    size = written.norm(dim=-1).clamp(min=1e-12)
    moved = ((written @ gram) * written).sum(dim=-1).clamp(min=0).sqrt()
    usual = size * gram.trace().sqrt() / len(gram) ** 0.5
    moved = torch.where(moved > SPEECHLESS * usual, moved, torch.inf)  # logits that do not move follow nothing
    return {"hidden": (written @ hidden.mT).norm(dim=-1) / size, "cosine": (written @ toward).abs() / moved}


def _shuffled(written: Float[Tensor, "some d_model"], rng: np.random.Generator) -> Float[Tensor, "some d_model"]:
    return torch.from_numpy(rng.permuted(written.numpy(force=True), axis=1)).to(written)


def _mean_unit_column(seen: Unembedding) -> Float[Tensor, " d_model"]:
    total = sum((columns.double().sum(dim=0) for _, columns in seen.blocks(unit=True)), torch.zeros_like(seen.mean).double())
    return (total / seen.tokens).float()
