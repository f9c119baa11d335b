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
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.model import Model, Run, patch
from innerworks.neurons.knowledge.last import Tokens, clean_runs, last_only, log_probability, repeated
from innerworks.sites import Site

ROWS = 320  # last tokens of one backward pass
LAYERS = 5  # that share it, each in rows of its own


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
    every = torch.arange(model.anatomy.layers)
    shape = len(prompts), len(every), model.anatomy.neurons
    probability, nats, activation = (torch.zeros(shape) for _ in range(3))
    for numbers, clean in clean_runs(model, prompts):
        own = torch.stack([clean.recorded["neurons", int(layer)][:, -1].float().cpu() for layer in every], dim=1)
        wanted = torch.tensor([[answers[number]] for number in numbers])
        for some in torch.arange(len(numbers)).split(max(1, ROWS // (LAYERS * steps))):
            places = torch.tensor(numbers)[some]
            activation[places] = own[some]
            for layers in every.split(LAYERS):
                found = _of_layers(model, clean, some, layers.tolist(), own[some][:, layers], wanted[some], steps)
                at = places[:, None], layers
                probability[at], nats[at] = found
            step(len(some))
    return Attributions(probability=probability, nats=nats, activation=activation)


def _of_layers(
    model: Model,
    clean: Run,
    rows: Int[Tensor, " prompt"],
    layers: list[int],
    own: Float[Tensor, "prompt layer neuron"],
    answers: Int[Tensor, "prompt 1"],
    steps: int,
) -> tuple[Float[Tensor, "prompt layer neuron"], Float[Tensor, "prompt layer neuron"]]:
    """Attributions of some layers, of the probability and of the log-probability: one row for each prompt, layer and step."""
    each = len(layers) * steps
    many = repeated(clean, rows.repeat_interleave(each), first=layers[0])
    middles = (torch.arange(steps) + 0.5) / steps
    scaled = (own[:, :, None] * middles[:, None]).flatten(0, 2).to(model.device).requires_grad_()  # [row, neuron]
    edits = []
    for number, layer in enumerate(layers):
        mine = torch.arange(len(scaled)) // steps % len(layers) == number
        where = last_only(many) & mine.to(many.mask.device)[:, None]
        edits.append(patch(Site(layer=layer, kind="neurons"), scaled[:, None], positions=where))
    run = model.run(many.tokens, edit=edits, resume=many, suffix=True, grad=True, logits="none")
    with torch.enable_grad():
        log = log_probability(model, run.final, answers.repeat_interleave(each, dim=0))
    (of_log,) = torch.autograd.grad(log.sum(), scaled)
    of_probability = of_log * log.detach().exp().to(of_log)[:, None]  # dp = p d log p
    probability, nats = (own * one.cpu().unflatten(0, (len(rows), -1, steps)).mean(dim=2) for one in (of_probability, of_log))
    return probability, nats
