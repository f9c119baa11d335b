"""What does it cost each document to lose a head? Exact mean ablation.

Each batch is run once as it is; every head's ablation resumes from that run at its layer. The head's z is replaced by its mean
over the discovery half of the text at every position but the first. Harm is the rise of the document's mean loss, in nats per
token.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from innerworks.heads.ablation import remove_rotated
from innerworks.heads.controls import Control
from innerworks.model import Mean, Model, Run, ablate
from innerworks.model.harms import changes
from innerworks.model.losses import document_losses
from innerworks.sites import Site
from innerworks.text import TextBatch


def harms(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    heads: Sequence[Control],
    *,
    step: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "head unit"]:
    """Rise of each document's loss without each head (or with what its ablation removes under a rotation, for a control)."""
    ways = [lambda clean, head=head: _without(model, clean, mean, head) for head in heads]
    return changes(model, batches, ways, lambda batch, final: document_losses(model, final, batch), step=step)


def _without(model: Model, clean: Run, mean: Mean, head: Control) -> Run:
    if len(head) == 3:
        turned = remove_rotated(model, mean, head)
        return model.run(clean.tokens, mask=clean.mask, watch=turned, resume=clean, logits="none")
    alone = ablate(Site(layer=head[0], head=head[1]), mean=mean)
    return model.run(clean.tokens, mask=clean.mask, edit=alone, resume=clean, logits="none")
