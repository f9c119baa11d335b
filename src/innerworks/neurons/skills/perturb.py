"""What does it cost each document when the best neurons of a kind of text are taken out together?

Each neuron of the group is set to its mean over the discovery half, at every position but the first. Compared are 20 groups of
neurons that are no candidates of this kind of text, each member removing about as much as the one whose place it takes.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from innerworks.model import Mean, Model
from innerworks.model.harms import changes
from innerworks.model.losses import document_losses
from innerworks.neurons.groups import Group
from innerworks.neurons.necessity import without
from innerworks.stats import Half
from innerworks.text import Reading, TextBatch
from innerworks.text.openings import LEAST_TOKENS, openings
from innerworks.text.reading import BATCH, Window, batch_of

HALF: Half = "confirmation"


def trial(reading: Reading, domain: str, *, elsewhere: int, tokens: int) -> list[TextBatch]:
    """Beginnings of all confirmation documents of a domain, and of about so many others, as many of each other domain."""
    batches = []
    for name, chosen in _chosen(reading, domain, elsewhere=elsewhere, tokens=tokens).items():
        batches += [batch_of(chosen[start : start + BATCH], "text", name, HALF) for start in range(0, len(chosen), BATCH)]
    return batches


def comparisons(reading: Reading, domain: str, *, elsewhere: int) -> int:
    """Of how many documents of other domains a trial consists."""
    chosen = _chosen(reading, domain, elsewhere=elsewhere, tokens=LEAST_TOKENS)
    return sum(len(windows) for name, windows in chosen.items() if name != domain)


def _chosen(reading: Reading, domain: str, *, elsewhere: int, tokens: int) -> dict[str, list[Window]]:
    texts = openings(reading, HALF, tokens=tokens)
    each = -(-elsewhere // max(len(texts) - 1, 1))
    return {name: windows if name == domain else windows[:each] for name, windows in texts.items()}


def harms(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    groups: Sequence[Group],
    *,
    step: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "group unit"]:
    """Rise of each document's loss without each group, in nats per token."""
    ways = [without(model, mean, group) for group in groups]
    return changes(model, batches, ways, lambda batch, final: document_losses(model, final, batch), step=step)
