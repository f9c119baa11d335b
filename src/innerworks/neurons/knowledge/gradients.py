"""To which neurons is the answer owed? Integrated gradients over each layer's neurons at the last token.

1. The activations of one layer at the last token are scaled, together, from nothing to what they are, in equal steps.
2. At the middle of each step the gradient of the answer's probability is taken; their mean, times the activations, is the
   attribution. Over a layer, attributions add up to what the probability loses when the whole layer is silent there.

Sundararajan et al. 2017, arXiv:1703.01365; Dai et al. 2022, arXiv:2104.08696, who take the beginnings of the steps. In gated
families the activation is the gate times the value. The same gradients give attributions of the log-probability.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model import Model, Run, patch
from innerworks.neurons.knowledge.last import Tokens, clean_runs, last_only, log_probability, repeated
from innerworks.sites import Site

ROWS = 256  # last tokens of one backward pass


@dataclass(frozen=True, kw_only=True)
class Attributions:
    """Of each prompt, `[prompt, layer, neuron]`: in probability and in nats; and the activations themselves."""

    probability: Float[Tensor, "prompt layer neuron"]
    nats: Float[Tensor, "prompt layer neuron"]
    activation: Float[Tensor, "prompt layer neuron"]


def integrated_gradients(
    model: Model,
    prompts: Sequence[Tokens],
    answers: Sequence[int],
    *,
    steps: int,
    step: Callable[[int], None] = lambda prompts: None,
) -> Attributions:
    """Attribute the answer's probability after each prompt to every neuron; step: called with the prompts done."""
    shape = len(prompts), model.anatomy.layers, model.anatomy.neurons
    probability, nats, activation = (torch.zeros(shape) for _ in range(3))
    for numbers, clean in clean_runs(model, prompts):
        wanted = torch.tensor([[answers[number]] for number in numbers])
        for some in torch.arange(len(numbers)).split(max(1, ROWS // steps)):
            many = repeated(clean, some.repeat_interleave(steps))
            places = torch.tensor(numbers)[some]
            for layer in range(model.anatomy.layers):
                own = clean.recorded["neurons", layer][some, -1].float()
                found = _of_layer(model, many, layer, own, wanted[some], steps)
                probability[places, layer], nats[places, layer] = (one.cpu() for one in found)
                activation[places, layer] = own.cpu()
            step(len(some))
    return Attributions(probability=probability, nats=nats, activation=activation)


def _of_layer(
    model: Model, many: Run, layer: int, own: Float[Tensor, "prompt neuron"], answers: Tensor, steps: int
) -> tuple[Float[Tensor, "prompt neuron"], Float[Tensor, "prompt neuron"]]:
    """Attributions of one layer: of the probability, and of the log-probability."""
    middles = (torch.arange(steps, device=own.device) + 0.5) / steps
    scaled = (own[:, None] * middles[:, None]).flatten(0, 1).requires_grad_()  # [prompt step, neuron]
    edit = patch(Site(layer=layer, kind="neurons"), scaled[:, None], positions=last_only(many))
    run = model.run(many.tokens, edit=edit, resume=many, suffix=True, grad=True, logits="none")
    with torch.enable_grad():
        log = log_probability(model, run.final, answers.repeat_interleave(steps, dim=0))
    (of_log,) = torch.autograd.grad(log.sum(), scaled)
    of_probability = of_log * log.detach().exp().to(of_log)[:, None]  # dp = p d log p
    probability, nats = (own * one.unflatten(0, (-1, steps)).mean(dim=1) for one in (of_probability, of_log))
    return probability, nats
