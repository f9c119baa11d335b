"""Which texts are looked at once more, after the pass? The beginnings of a few confirmation documents, evenly over domains."""

from collections.abc import Sequence

from innerworks.stats import Half
from innerworks.text import Reading, TextBatch
from innerworks.text.openings import openings
from innerworks.text.reading import BATCH, Window, batch_of

HALF: Half = "confirmation"


def sample(reading: Reading, *, documents: int, tokens: int) -> list[TextBatch]:
    """So many documents, the first of each domain before the second of any; those of a domain come together."""
    by_domain = openings(reading, HALF, tokens=tokens)
    ranked = sorted((rank, number) for number, some in enumerate(by_domain.values()) for rank in range(len(some)))
    wanted = [0] * len(by_domain)
    for _, number in ranked[:documents]:
        wanted[number] += 1
    chosen = {name: some[:count] for (name, some), count in zip(by_domain.items(), wanted, strict=True) if count}
    return [batch for domain, some in chosen.items() for batch in _batches(domain, some)]


def _batches(domain: str, windows: Sequence[Window]) -> list[TextBatch]:
    return [batch_of(windows[start : start + BATCH], "text", domain, HALF) for start in range(0, len(windows), BATCH)]
