"""Which neurons belong to a fact? Those that most ways of asking have in common.

1. After each prompt, keep the neurons whose attribution is at least .2 of the largest of all layers.
2. Of a fact, keep the neurons that more than half of its prompts keep: what one wording alone brings up is left out.

Dai et al. 2022, arXiv:2104.08696, move the second share until a fact has 2 to 5 neurons; here it is fixed.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model.matched import Place

OF_LARGEST = 0.2
OF_PROMPTS = 0.5


def shared_neurons(attributions: Float[Tensor, "prompt layer neuron"]) -> tuple[Place, ...]:
    """The neurons of one fact, from the attributions after its prompts, the strongest on average first."""
    largest = attributions.flatten(1).max(dim=1).values
    kept = (attributions >= OF_LARGEST * largest[:, None, None]) & (attributions > 0)
    found = (kept.float().mean(dim=0) > OF_PROMPTS).nonzero().tolist()
    mean = attributions.mean(dim=0)
    return tuple(sorted(((layer, neuron) for layer, neuron in found), key=lambda place: -float(mean[place])))


def overlap(some: tuple[Place, ...], others: tuple[Place, ...]) -> float:
    """How much two sets have in common, of all that is in either; 1 for two empty ones."""
    either = {*some, *others}
    return len({*some} & {*others}) / len(either) if either else 1.0


def sizes(
    activation: Float[Tensor, "prompt layer neuron"], norms: Float[Tensor, "layer neuron"]
) -> Float[Tensor, "layer neuron"]:
    """How much every neuron writes at the last token of a fact's prompts: what silencing it removes."""
    return (activation.square().mean(dim=0).sqrt() * norms).double()


def output_norms(weights: list[Tensor]) -> Float[Tensor, "layer neuron"]:
    """The length of what each neuron writes per unit of activation; weights: W_out of every layer."""
    return torch.stack([one.float().norm(dim=-1).cpu() for one in weights])
