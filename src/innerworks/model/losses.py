"""What does a text cost a model? The loss of its next tokens, read off the stream after the final norm."""

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


def token_losses(
    model: Model, final: Float[Tensor, "batch seq d_model"], batch: TextBatch, rows: Bool[Tensor, "batch seq"] | None = None
) -> Float[Tensor, "batch seq"]:
    """Loss of the next token at each position that counts, in nats, and 0 elsewhere; rows: at these of them only."""
    rows = (counted(batch) if rows is None else rows & counted(batch)).to(final.device)
    losses = torch.zeros(rows.shape, device=final.device)
    targets = batch.tokens.roll(-1, dims=1).to(final.device)
    losses[rows] = cross_entropy(model.readout(final[rows]).float(), targets[rows], reduction="none")
    return losses


def document_losses(
    model: Model, final: Float[Tensor, "batch seq d_model"], batch: TextBatch, rows: Bool[Tensor, "batch seq"] | None = None
) -> Float[Tensor, " batch"]:
    """Mean loss of each document's next tokens, in nats; rows: at these positions only (NaN for a document that has none)."""
    chosen = (counted(batch) if rows is None else rows & counted(batch)).to(final.device)
    return token_losses(model, final, batch, rows).sum(dim=1) / chosen.sum(dim=1)
