"""An example in a few words: which token looks at which, the strongest first."""

from dataclasses import dataclass

import numpy as np

from innerworks.atlas import Example
from innerworks.show.tokens import visible


@dataclass(frozen=True, kw_only=True)
class Link:
    """One token looking at another: attention probability from query to key, positions counted within the example."""

    query: str
    query_position: int
    key: str
    key_position: int
    probability: float


def strongest(example: Example, *, most: int = 3, least: float = 0.1) -> list[Link]:
    """Return the tokens that look hardest at one earlier (or the same) token, one link per query, strongest first.

    The first token of the example is left out on both ends: resting there says little about what a head does.
    """
    inner = np.tril(np.nan_to_num(example.pattern.astype(np.float64)))[1:, 1:]
    if inner.size == 0:
        return []
    keys, peaks = inner.argmax(axis=1), inner.max(axis=1)
    rows = np.argsort(-peaks, kind="stable")[:most]
    return [_link(example, int(row) + 1, int(keys[row]) + 1) for row in rows if peaks[row] >= least]


def at_query(example: Example, *, most: int = 3, least: float = 0.1) -> list[Link]:
    """Return where the example's own query looks, the strongest first; with no query the `strongest` links of all."""
    if example.query is None:
        return strongest(example, most=most, least=least)
    row = np.nan_to_num(example.pattern[example.query, : example.query + 1].astype(np.float64))
    keys = np.argsort(-row, kind="stable")[:most]
    return [_link(example, example.query, int(key)) for key in keys if row[key] >= least]


def _link(example: Example, query: int, key: int) -> Link:
    return Link(
        query=visible(example.tokens[query]),
        query_position=query,
        key=visible(example.tokens[key]),
        key_position=key,
        probability=float(example.pattern[query, key]),
    )
