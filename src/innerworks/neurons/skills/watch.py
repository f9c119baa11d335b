"""What does every neuron do on each document: on average, and at one late position?

The average is over positions 1 and later of all windows; the late position is the 101st token of a window, where a document has
one: by then a reader knows what kind of text it is. One number per document, neuron and way of reading.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import State
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch

LATE = 100  # tokens before it
WAYS = ("mean", "late")


class SkillReadings:
    """The instrument: sums of activations by document, for both ways of reading."""

    name = "skill_readings"
    kinds: Sequence[str] = ("neurons",)

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Sums by way, unit of text, layer and neuron."""
        texts = [number for number, unit in enumerate(reading.units) if unit.material == "text"]
        self._place = {number: place for place, number in enumerate(texts)}
        sums = torch.zeros(len(WAYS), len(texts), anatomy.layers, anatomy.neurons)
        return {"sum": sums, "rows": torch.zeros(len(WAYS), len(texts))}

    def begin_batch(self, batch: TextBatch) -> None:
        """Choose the positions of each way of reading."""
        average, late = batch.mask.clone(), torch.zeros_like(batch.mask)
        average[:, 0] = False
        late[:, LATE : LATE + 1] = batch.mask[:, LATE : LATE + 1]
        self._rows = torch.stack([average, late]).float()
        self._units = torch.tensor([self._place.get(unit, -1) for unit in batch.units.tolist()])

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


def readings(state: State, places: Sequence[int]) -> dict[str, Float[np.ndarray, "unit layer neuron"]]:
    """By way of reading, one number per document and neuron. A way that some of the documents do not allow is left out.

    places: of the documents that are asked for, among the texts of the reading.
    """
    found = {}
    for number, way in enumerate(WAYS):
        rows = state["rows"][number][list(places)]
        if bool((rows > 0).all()):
            found[way] = (state["sum"][number][list(places)] / rows[:, None, None]).numpy(force=True)
    return found
