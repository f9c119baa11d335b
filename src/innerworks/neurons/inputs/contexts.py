"""Which tokens stand where neurons are strongest?"""

import numpy as np
from jaxtyping import Int

from innerworks.model.strongest import Unpacked
from innerworks.text import Reading


def tokens_at(reading: Reading, places: Unpacked, *, back: int = 0) -> Int[np.ndarray, "*any"]:
    """The token at each place (or so far before it in its window), -1 where there is none."""
    windows = sorted(range(len(reading.windows)), key=lambda i: (reading.windows[i].unit, i))  # those of a unit in their order
    lengths = np.array([len(reading.windows[i].tokens) for i in windows])
    tokens = np.concatenate([np.array(reading.windows[i].tokens) for i in windows])
    units = np.array([reading.windows[i].unit for i in windows])
    start = np.concatenate([[0], lengths.cumsum()])[:-1]
    first = np.searchsorted(units, np.maximum(places.unit, 0))
    found = tokens[start[np.minimum(first + places.window, len(start) - 1)] + np.maximum(places.position - back, 0)]
    return np.where((places.unit >= 0) & (places.position >= back), found, -1)
