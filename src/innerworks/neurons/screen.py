"""Which neurons might a metric depend on? An estimate for all of them, by one backward pass per batch.

`gradient . (mean - activation)`, summed over positions: how much the metric would rise, to first order, were the neuron's mean
put in its place (attribution patching, Nanda 2023). It picks what is ablated exactly, and decides nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from innerworks.model import Mean, Model
from innerworks.model.harms import Metric
from innerworks.sites import Site
from innerworks.text import TextBatch


def attributions(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    metric: Metric,
    *,
    step: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "unit layer neuron"]:
    """How much a metric would rise for each row of the batches without each neuron; position 0 is left as it is."""
    found = []
    for batch in (one.to(model.device) for one in batches):
        run = model.run(batch.tokens, mask=batch.mask, record=model.sites("neurons"), grad=True, logits="none")
        layers = [run.recorded["neurons", layer] for layer in range(model.anatomy.layers)]
        gradients = torch.autograd.grad(metric(batch, run.final).sum(), layers)
        rows = batch.mask.clone()
        rows[:, 0] = False
        by_layer = []
        for layer, (activation, gradient) in enumerate(zip(layers, gradients, strict=True)):
            change = mean.of(Site(layer=layer, kind="neurons")).to(activation.device) - activation.detach().float()
            by_layer.append((gradient.float() * change * rows[..., None]).sum(dim=1))
        found.append(torch.stack(by_layer, dim=1).numpy(force=True))
        step()
    return np.concatenate(found)
