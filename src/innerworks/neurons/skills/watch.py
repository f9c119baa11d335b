"""What does every neuron do on each document: on average, and at one late position?

At most 32 documents of each domain and half are watched, those whose ids come first by SHA-256: one number per document, neuron
and way of reading must be held at once. Twenty-four are enough for a perfect neuron to be told from the floor (`decide.FLOOR`).

The average is over positions 1 and later of all windows; the late position is the 101st token of a window, where a document has
one: by then a reader knows what kind of text it is. One number per document, neuron and way of reading.
"""

import hashlib
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import State
from innerworks.sites import Site
from innerworks.stats import Half
from innerworks.text import Reading, TextBatch
from innerworks.text.openings import LEAST_TOKENS, openings

LATE = 100  # tokens before it
MOST = 32  # documents of a domain and half
WAYS = ("mean", "late")


def watched(reading: Reading) -> list[int]:
    """Which units of a reading are watched, by number; documents of hardly any tokens are not."""
    numbers = []
    for half in get_args(Half):
        for windows in openings(reading, half, tokens=LEAST_TOKENS).values():
            units = sorted((window.unit for window in windows), key=lambda unit: _hash(reading.units[unit].id))
            numbers += units[:MOST]
    return sorted(numbers)


def bytes_of(anatomy: Anatomy, reading: Reading) -> int:
    """The memory that readings take."""
    return 4 * len(WAYS) * len(watched(reading)) * anatomy.layers * anatomy.neurons


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class SkillReadings:
    """The instrument: sums of activations by document, for both ways of reading."""

    name = "skill_readings"
    kinds: Sequence[str] = ("neurons",)

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Sums by way, document that is watched, layer and neuron."""
        documents = watched(reading)
        self._place = {number: place for place, number in enumerate(documents)}
        sums = torch.zeros(len(WAYS), len(documents), anatomy.layers, anatomy.neurons)
        return {"sum": sums, "rows": torch.zeros(len(WAYS), len(documents))}

    def begin_batch(self, batch: TextBatch) -> None:
        """Choose the positions of each way of reading."""
        seen = torch.tensor([unit in self._place for unit in batch.units.tolist()], device=batch.mask.device)
        average, late = batch.mask & seen[:, None], torch.zeros_like(batch.mask)
        late[:, LATE : LATE + 1] = average[:, LATE : LATE + 1]
        average[:, 0] = False
        self._rows = torch.stack([average, late]).float()
        self._units = torch.tensor([self._place.get(unit, 0) for unit in batch.units.tolist()])  # others add nothing

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Add one layer's activations `[batch, seq, neuron]`."""
        if batch.material != "text":
            return
        sums = torch.einsum("wbs,bsn->wbn", self._rows.to(activation.device), activation.float()).cpu()
        assert site.layer is not None
        state["sum"][:, :, site.layer].index_add_(1, self._units, sums)

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Count the rows."""
        if batch.material == "text":
            state["rows"].index_add_(1, self._units, self._rows.sum(dim=2).cpu())


def readings(state: State) -> dict[str, Float[np.ndarray, "unit layer neuron"]]:
    """By way of reading, one number per watched document and neuron. A way that some of them do not allow is left out."""
    found = {}
    for number, way in enumerate(WAYS):
        rows = state["rows"][number]
        if bool((rows > 0).all()):
            found[way] = (state["sum"][number] / rows[:, None, None]).numpy(force=True)
    return found
