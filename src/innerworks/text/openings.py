"""Which documents are long enough to say anything, where only their beginnings are read?

A document of a few tokens has hardly a row with a next token, or none: nothing can be averaged over it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from innerworks.stats import Half
from innerworks.text.reading import BATCH, Reading, TextBatch, Window, batch_of

LEAST_TOKENS = 8  # of a document's beginning; shorter ones say nothing
#: documents of a domain in each half. With fewer not even an effect of two standard deviations is found (power .9 at p = .005),
#: and of many heads one always has a tiny standard error by accident.
LEAST_DOCUMENTS = 7
MIXED = "mixed"  # what is left of domains too small for a stratum of their own (`text.corpus`): itself no domain


def openings(reading: Reading, half: str, *, tokens: int) -> dict[str, list[Window]]:
    """The beginnings of a half's documents, of so many tokens at most, by stratum; short documents are left out."""
    first = {window.unit: window for window in reversed(reading.windows)}
    by_stratum: dict[str, list[Window]] = {}
    for number, unit in enumerate(reading.units):
        if (unit.material, unit.half) == ("text", half) and len(first[number].tokens) >= LEAST_TOKENS:
            by_stratum.setdefault(unit.stratum, []).append(_cut(first[number], tokens))
    return by_stratum


def documents(reading: Reading, half: Half, *, tokens: int) -> list[TextBatch]:
    """The beginnings of all documents of one half, those of one domain together, eight to a batch."""
    return [
        batch_of(windows[start : start + BATCH], "text", domain, half)
        for domain, windows in openings(reading, half, tokens=tokens).items()
        for start in range(0, len(windows), BATCH)
    ]


def comparable(*halves: Sequence[TextBatch]) -> list[str]:
    """The domains that have documents enough in each half to be asked about; the others are text elsewhere, and so is `mixed`."""
    counts = [Counter[str]() for _ in halves]
    for count, batches in zip(counts, halves, strict=True):
        for batch in batches:
            count[batch.stratum] += len(batch.tokens)
    return sorted(domain for domain in counts[0] if domain != MIXED and min(count[domain] for count in counts) >= LEAST_DOCUMENTS)


def _cut(one: Window, tokens: int) -> Window:
    return replace(one, tokens=one.tokens[:tokens], words=one.words[:tokens], kinds=one.kinds[:tokens])
