"""Which pairs of head and domain are worth an ablation? A first-order estimate for all heads, by one backward pass per document.

1. Run discovery documents with gradients, and take the gradient of each document's mean loss at every head's z.
2. To first order, putting the mean in the head's place would change the loss by `sum over positions of gradient . (mean - z)`,
   position 0 left out, as the ablation leaves it: nats per token, positive where losing the head would harm.
3. Rank pairs of head and domain by the two-sample difference of these estimates less two standard errors, those whose ratio of
   harm in the domain to harm elsewhere looks right before the others.

Nanda 2023 (attribution patching), neelnanda.io; Kramar et al. 2024, arXiv:2403.00745. What it does not do: decide. Where a head
is saturated, or others would repair its loss, the estimate is wrong; only the exact ablation (`harm.py`) is tested.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from innerworks.heads.domains.contrast import screened
from innerworks.model import Mean, Model
from innerworks.sites import Site
from innerworks.stats import Half
from innerworks.text import Reading, TextBatch
from innerworks.text.reading import BATCH, batch_of

LEAST_TOKENS = 8  # of a document's beginning; shorter ones say nothing


def documents(reading: Reading, half: Half, *, tokens: int) -> list[TextBatch]:
    """The beginnings of all documents of one half, those of one domain together, eight to a batch."""
    first = {window.unit: window for window in reversed(reading.windows)}
    by_domain: dict[str, list[int]] = {}
    for number, unit in enumerate(reading.units):
        if (unit.material, unit.half) == ("text", half) and len(first[number].tokens) >= LEAST_TOKENS:
            by_domain.setdefault(unit.stratum, []).append(number)
    cut = {
        unit: replace(one, tokens=one.tokens[:tokens], words=one.words[:tokens], kinds=one.kinds[:tokens])
        for unit, one in first.items()
    }
    return [
        batch_of([cut[unit] for unit in units[start : start + BATCH]], "text", domain, half)
        for domain, units in by_domain.items()
        for start in range(0, len(units), BATCH)
    ]


def counted(batch: TextBatch) -> Tensor:
    """Positions whose next token counts: real ones after the first that have a next one, `[batch, seq]`."""
    rows = batch.mask & batch.mask.roll(-1, dims=1)
    rows[:, 0] = rows[:, -1] = False
    return rows


def document_losses(model: Model, final: Float[Tensor, "batch seq d_model"], batch: TextBatch) -> Float[Tensor, " batch"]:
    """Mean loss of each document's next tokens, in nats."""
    rows = counted(batch).to(final.device)
    losses = torch.zeros(rows.shape, device=final.device)
    targets = batch.tokens.roll(-1, dims=1).to(final.device)
    losses[rows] = cross_entropy(model.readout(final[rows]).float(), targets[rows], reduction="none")
    return losses.sum(dim=1) / rows.sum(dim=1)


def estimates(
    model: Model, batches: Sequence[TextBatch], mean: Mean, *, step: Callable[[int], None] = lambda documents: None
) -> Float[np.ndarray, "unit layer head"]:
    """What losing each head would cost each document, to first order; documents in the order of the batches, nats per token."""
    found = []
    for batch in batches:
        found.append(_estimates(model, batch.to(model.device), mean))
        step(len(batch.tokens))
    return np.concatenate(found)


def _estimates(model: Model, batch: TextBatch, mean: Mean) -> Float[np.ndarray, "unit layer head"]:
    run = model.run(batch.tokens, mask=batch.mask, record=model.sites("z"), grad=True, logits="none")
    layers = [run.recorded["z", layer] for layer in range(model.anatomy.layers)]
    gradients = torch.autograd.grad(document_losses(model, run.final, batch).sum(), layers)
    rows = batch.mask.clone()
    rows[:, 0] = False
    by_layer = []
    for layer, (z, gradient) in enumerate(zip(layers, gradients, strict=True)):
        change = mean.of(Site(layer=layer, kind="z")).to(z.device) - z.detach().float()
        by_layer.append(torch.einsum("bshe,bshe,bs->bh", gradient.float(), change, rows.to(change)))
    return torch.stack(by_layer, dim=1).double().numpy(force=True)


def promising(found: Float[np.ndarray, "unit layer head"], strata: Sequence[str], *, most: int) -> list[tuple[str, int, int]]:
    """The (domain, layer, head) to ablate, the most promising first; none where there is one domain only."""
    names, domains = np.array(strata), sorted(set(strata))
    if len(domains) < 2:
        return []
    ranked: list[tuple[bool, float, str, int, int]] = []
    for domain in domains:
        inside = names == domain
        if min(inside.sum(), (~inside).sum()) < 2:
            continue
        low, right = screened(found, inside)
        ranked += [(not right[at], -float(low[at]), domain, int(at[0]), int(at[1])) for at in np.ndindex(*low.shape)]
    return [(domain, layer, head) for *_, domain, layer, head in sorted(ranked)[:most]]
