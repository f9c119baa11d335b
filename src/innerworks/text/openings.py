"""Which documents are long enough to say anything, where only their beginnings are read?

A document of a few tokens has hardly a row with a next token, or none: nothing can be averaged over it.
"""

from dataclasses import replace

from innerworks.stats import Half
from innerworks.text.reading import BATCH, Reading, TextBatch, Window, batch_of

LEAST_TOKENS = 8  # of a document's beginning; shorter ones say nothing


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


def _cut(one: Window, tokens: int) -> Window:
    return replace(one, tokens=one.tokens[:tokens], words=one.words[:tokens], kinds=one.kinds[:tokens])
