"""What does a document cost a model? The mean loss of its next tokens, read off the stream after the final norm."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from innerworks.model.model import Model
from innerworks.text import TextBatch


def counted(batch: TextBatch) -> Bool[Tensor, "batch seq"]:
    """Positions whose next token counts: real ones after the first that have a next one."""
    rows = batch.mask & batch.mask.roll(-1, dims=1)
    rows[:, 0] = rows[:, -1] = False
    return rows


def document_losses(
    model: Model, final: Float[Tensor, "batch seq d_model"], batch: TextBatch, rows: Bool[Tensor, "batch seq"] | None = None
) -> Float[Tensor, " batch"]:
    """Mean loss of each document's next tokens, in nats; rows: at these positions only (NaN for a document that has none)."""
    rows = (counted(batch) if rows is None else rows & counted(batch)).to(final.device)
    losses = torch.zeros(rows.shape, device=final.device)
    targets = batch.tokens.roll(-1, dims=1).to(final.device)
    losses[rows] = cross_entropy(model.readout(final[rows]).float(), targets[rows], reduction="none")
    return losses.sum(dim=1) / rows.sum(dim=1)
