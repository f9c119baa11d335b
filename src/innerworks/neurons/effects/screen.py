"""Which neurons might predictions depend on where their family is on? An estimate for all labels, by one backward pass per batch.

`gradient of the loss . (mean - activation)` at the rows where the neuron's family is on, per such row: how much the loss of a
text would rise from there on, to first order, were the mean put in its place there. Families differ from neuron to neuron, so
that a backward pass for the metric of each would cost more than ablating it; read at its own rows, one pass serves all. It picks
what is ablated exactly, and decides nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from innerworks.model import Mean, Model
from innerworks.model.losses import counted, token_losses
from innerworks.neurons.effects.families import Family
from innerworks.neurons.inputs.design import Design
from innerworks.sites import Site
from innerworks.text import TextBatch


def screened(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    families: Sequence[Family],
    design: Design,
    *,
    step: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, " family"]:
    """By how much the loss would rise without each neuron, in nats per row of its family; a mean over documents with some."""
    total, documents = np.zeros(len(families)), np.zeros(len(families))
    for batch in (one.to(model.device) for one in batches):
        run = model.run(batch.tokens, mask=batch.mask, record=model.sites("neurons"), grad=True, logits="none")
        layers = [run.recorded["neurons", layer] for layer in range(model.anatomy.layers)]
        gradients = torch.autograd.grad(token_losses(model, run.final, batch).sum(), layers)
        features, rows = design.rows(batch.tokens), counted(batch)
        for number, one in enumerate(families):
            layer, neuron = one.neuron
            own, slope = (some[layer][..., neuron].detach().float() for some in (layers, gradients))
            rise = (slope * (mean.of(Site(layer=layer, neuron=neuron)).to(own.device) - own)).to(rows.device)
            on = one.on(batch.tokens, features) & rows
            there = on.any(dim=1)
            by_document = (rise * on).sum(dim=1)[there] / on.sum(dim=1)[there]
            total[number] += float(by_document.sum())
            documents[number] += int(there.sum())
        step()
    return total / np.maximum(documents, 1)


def documents_on(batches: Sequence[TextBatch], families: Sequence[Family], design: Design) -> Float[np.ndarray, " family"]:
    """In how many documents is each family on, at a token that has a next one?"""
    found = np.zeros(len(families))
    for batch in batches:
        features, rows = design.rows(batch.tokens), counted(batch)
        found += [int((one.on(batch.tokens, features) & rows).any(dim=1).sum()) for one in families]
    return found
