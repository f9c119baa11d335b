"""What does it cost each text to run a model another way? The clean run once, then each way, resumed from it.

A *way* is any changed run: a head or a neuron at its mean, a control. A *metric* is read off the stream after the final norm: the
loss of the document (`losses.py`), the logits of right answers. Harm is the rise of a loss, or the fall of a score.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model.model import Model
from innerworks.model.run import Run
from innerworks.text import TextBatch

Way = Callable[[Run], Run]  # a clean run -> the changed one
Metric = Callable[[TextBatch, Float[Tensor, "batch seq d_model"]], Float[Tensor, " batch"]]


@torch.no_grad()
def changes(
    model: Model,
    batches: Sequence[TextBatch],
    ways: Sequence[Way],
    metric: Metric,
    *,
    step: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "way unit"]:
    """How much a metric rises for each row of the batches, in their order; step: called after each changed run."""
    found = []
    for batch in (one.to(model.device) for one in batches):
        clean = model.run(batch.tokens, mask=batch.mask, keep="resume", logits="none")
        before = metric(batch, clean.final).double()
        after = np.zeros((len(ways), len(batch.tokens)))
        for number, way in enumerate(ways):
            after[number] = (metric(batch, way(clean).final).double() - before).numpy(force=True)
            step()
        found.append(after)
    return np.concatenate(found, axis=1) if found else np.zeros((len(ways), 0))
