"""Which pairs of head and domain are worth an ablation? An estimate for all heads, by two backward passes per document.

1. The expected rise of the loss when the mean is put in a head's place is how far the predictions move: the divergence of what
   is predicted then from what is predicted now. To second order it is `1/2 change' F change`, with F the Fisher information.
2. F needs no Hessian: draw next tokens from the model's own predictions, take the gradient of their loss at every head's z, and
   square `sum over positions of gradient . (mean - z)`. In expectation that is `change' F change`; two draws are averaged.
   Position 0 is left out, as the ablation leaves it. In nats per token.
3. Of domains with documents enough in both halves, rank pairs of head and domain by the two-sample difference of these estimates
   less two standard errors, those whose ratio of harm in the domain to harm elsewhere looks right before the others.

The gradient of the real loss (attribution patching, Nanda 2023, neelnanda.io) will not do: near its optimum a model's expected
gradient is zero, and what is left on a few documents is noise, mostly of the wrong sign (on SmolLM2-135M; see docs). What this
does not do: decide. Where others would repair a head's loss the estimate is too large, and it is rough where the change is not
small; only the exact ablation (`harm.py`) is tested.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.heads.domains.contrast import screened
from innerworks.model import Mean, Model
from innerworks.model.losses import counted
from innerworks.sites import Site
from innerworks.text import TextBatch

DRAWS = 2  # of next tokens, per document


def estimates(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    *,
    seed: int = 0,
    step: Callable[[int], None] = lambda documents: None,
) -> Float[np.ndarray, "unit layer head"]:
    """What losing each head would cost each document, to second order; documents in the order of the batches, nats per token."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for batch in batches:
        found.append(_estimates(model, batch.to(model.device), mean, generator))
        step(len(batch.tokens))
    return np.concatenate(found)


def _estimates(model: Model, batch: TextBatch, mean: Mean, generator: torch.Generator) -> Float[np.ndarray, "unit layer head"]:
    run = model.run(batch.tokens, mask=batch.mask, record=model.sites("z"), grad=True, logits="none")
    layers = [run.recorded["z", layer] for layer in range(model.anatomy.layers)]
    rows = counted(batch).to(run.final.device)
    logits = model.readout(run.final[rows]).float().log_softmax(dim=-1)
    moved = torch.zeros(len(batch.tokens), len(layers), model.anatomy.heads, dtype=torch.float64)
    for draw in range(DRAWS):
        likely = logits.detach().exp().cpu()
        drawn = torch.multinomial(likely, 1, generator=generator).to(logits.device)
        gradients = torch.autograd.grad(logits.gather(1, drawn).sum(), layers, retain_graph=draw + 1 < DRAWS)
        moved += _along(layers, gradients, batch, mean).cpu() ** 2 / DRAWS
    return (moved / (2 * rows.sum(dim=1).cpu()[:, None, None])).numpy()


def _along(
    layers: Sequence[Tensor], gradients: Sequence[Tensor], batch: TextBatch, mean: Mean
) -> Float[Tensor, "batch layer head"]:
    """How a number changes, to first order, when each head's mean is put in its place after the first position."""
    rows = batch.mask.clone()
    rows[:, 0] = False
    by_layer = []
    for layer, (z, gradient) in enumerate(zip(layers, gradients, strict=True)):
        change = mean.of(Site(layer=layer, kind="z")).to(z.device) - z.detach().float()
        by_layer.append(torch.einsum("bshe,bshe,bs->bh", gradient.float(), change, rows.to(change)))
    return torch.stack(by_layer, dim=1).double()


def promising(
    found: Float[np.ndarray, "unit layer head"], strata: Sequence[str], domains: Sequence[str], *, most: int
) -> list[tuple[str, int, int]]:
    """The (domain, layer, head) to ablate, of these domains (`comparable`), the most promising first."""
    names = np.array(strata)
    ranked: list[tuple[bool, float, str, int, int]] = []
    for domain in domains:
        low, right = screened(found, names == domain)
        ranked += [(not right[at], -float(low[at]), domain, int(at[0]), int(at[1])) for at in np.ndindex(*low.shape)]
    return [(domain, layer, head) for *_, domain, layer, head in sorted(ranked)[:most]]
