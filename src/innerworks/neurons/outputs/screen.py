"""Which neurons might set the uncertainty, or move predictions towards frequencies? Estimates for all of some layers.

1. `|gradient . (mean - activation)|` per row, averaged per document, of the entropy and of the KL from token frequencies:
   how much either would change, to first order, were the neuron's mean put in its place. Three backward passes per batch, only
   through those layers.
2. Of the entropy also with the scale of the final norm held still (no gradient passes it): the rest is what goes through it.
3. Rows are the same as those of the exact ablation (`effects.py`), documents those of the discovery half.

What it does not do: decide. It picks what is ablated, and bounds what was not; how close it comes is kept beside it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model import Mean, Model, freeze
from innerworks.neurons.outputs.effects import Frequencies, predicted, spread_rows
from innerworks.sites import Site
from innerworks.text import TextBatch

SCREENED = ("entropy", "entropy_frozen", "kl")


def screened(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    layers: Sequence[int],
    of: Frequencies,
    *,
    rows: int,
    step: Callable[[], None] = lambda: None,
) -> dict[str, Float[np.ndarray, "unit layer neuron"]]:
    """Estimated mean absolute changes for each document, layer and neuron, in nats: `entropy`, `entropy_frozen`, `kl`."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in SCREENED}
    for batch in (one.to(model.device) for one in batches):
        for name, estimates in _screened(model, batch, mean, layers, of, rows).items():
            found[name].append(estimates.numpy(force=True).astype(np.float32))
        step()
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _screened(
    model: Model, batch: TextBatch, mean: Mean, layers: Sequence[int], of: Frequencies, rows: int
) -> dict[str, Float[Tensor, "batch layer neuron"]]:
    clean = model.run(batch.tokens, mask=batch.mask, keep="resume", logits="none")
    where = spread_rows(batch, rows)
    following, sites = batch.tokens.roll(-1, dims=1)[where], [Site(layer=layer, kind="neurons") for layer in layers]
    found = {}
    for names, edits in ((("entropy", "kl"), ()), (("entropy_frozen",), (freeze("norm_scale"),))):
        run = model.run(batch.tokens, mask=batch.mask, record=sites, edit=edits, resume=clean, grad=True, logits="none")
        activations = [run[site] for site in sites]
        now = predicted(model, run.final[where.to(run.final.device)], following, of)
        for name in names:
            total = getattr(now, name.partition("_")[0]).sum()
            gradients = torch.autograd.grad(total, activations, retain_graph=name != names[-1])
            found[name] = (
                torch.stack(
                    [
                        (gradient.float() * (mean.of(site).to(one.device) - one.detach().float()))[:, 1:]
                        .abs()
                        .sum(dim=1)
                        .to(where.device)
                        for site, one, gradient in zip(sites, activations, gradients, strict=True)
                    ],
                    dim=1,
                )
                / where.sum(dim=1)[:, None, None]
            )
    return found
