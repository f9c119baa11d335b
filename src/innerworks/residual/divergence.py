"""How far is what a lens says from what the model says in the end? `KL(final || lens)`, in nats, 0 where they agree.

1. From each window some positions are drawn (not the first, an outlier in most models); a model's vocabulary is so large that
   reading all positions at all layers would cost far more than running the model.
2. Of these the streams of all layers are kept, and the stream behind the final norm.
3. Rows go through the unembedding a block at a time, so that logits take bounded memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import kl_div

from innerworks.errors import BrokenModel
from innerworks.model.model import Model
from innerworks.model.readout.lens import LOGITS_AT_ONCE, Translate, after_final_norm
from innerworks.text.reading import Window


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one pass left at some positions: the stream at each layer, and behind the final norm."""

    streams: Float[Tensor, "layer row d_model"]
    final: Float[Tensor, "row width"]
    unit: Int[Tensor, " row"]  # the document of each row


def look(model: Model, window: Window, kind: str, *, rows: int, generator: torch.Generator) -> Seen:
    """Run the model on a window and keep some of its positions, drawn at random, the first left out."""
    tokens = torch.tensor([window.tokens])
    chosen = 1 + torch.randperm(tokens.shape[1] - 1, generator=generator)[:rows].sort().values
    run = model.run(tokens, record=model.sites(kind), logits="none")
    streams = torch.stack([run[site][0, chosen].float().to(model.device) for site in model.sites(kind)])
    if not bool(streams.isfinite().all()):
        raise BrokenModel(f"{model.name} computes NaN or infinity on the text: no lens can be trained on it.")
    return Seen(streams=streams, final=run.final[0, chosen], unit=torch.full((len(chosen),), window.unit))


def together(seen: Sequence[Seen]) -> Seen:
    """Several windows as one."""
    return Seen(
        streams=torch.cat([one.streams for one in seen], dim=1),
        final=torch.cat([one.final for one in seen]),
        unit=torch.cat([one.unit for one in seen]),
    )


def divergence(model: Model, stream: Float[Tensor, "row d_model"], final: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """`KL(final || lens)` of each row. final: log-probabilities. Gradients flow to the stream."""
    logits = model.readout(after_final_norm(model, stream.to(next(model.hf.parameters()).dtype)))
    return kl_div(logits.float().log_softmax(dim=-1), final, reduction="none", log_target=True).sum(dim=-1)


@torch.no_grad()
def ending(model: Model, final: Float[Tensor, "row width"]) -> Float[Tensor, "row vocab"]:
    """What the model says in the end: log-probabilities."""
    return model.readout(final).float().log_softmax(dim=-1)


@torch.no_grad()
def divergences(model: Model, seen: Seen, translate: Translate, layers: Sequence[int]) -> Float[Tensor, "layer row"]:
    """The divergence at each layer and row, as a lens reads them."""
    found = []
    for rows in blocks(model, len(seen.final)):
        final = ending(model, seen.final[rows])
        found.append(torch.stack([divergence(model, translate(layer, seen.streams[layer, rows]), final) for layer in layers]))
    return torch.cat(found, dim=1)


def blocks(model: Model, rows: int) -> Iterator[slice]:
    """Rows whose logits are held at once."""
    size = max(1, LOGITS_AT_ONCE // (4 * model.anatomy.vocab))  # the logits, what the model says, and what the two make
    return (slice(first, first + size) for first in range(0, rows, size))
