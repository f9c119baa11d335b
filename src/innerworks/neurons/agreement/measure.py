"""What do the logits of the right verb forms owe to each neuron? Agreement prompts of both halves, and one backward pass each.

1. A side is the prompts of one half as one batch; its units are templates, each over several nouns in both numbers, so that a
   neuron which only prefers one number of the verb adds nothing on average.
2. The contribution of a neuron is what the logits of the right forms less those of the wrong ones would fall by, to first order,
   were its mean over discovery prompts put in its place after the first position (`neurons/screen.py`).

Finlayson et al. 2021, arXiv:2106.06087, patch single neurons from the prompt of the other number; a mean asks less: what is lost
when the neuron no longer varies.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from innerworks.model import Mean, Model
from innerworks.model.prompts import Asked, Prompt, agreeing, batch_of, difference, prompts_of
from innerworks.neurons.screen import attributions
from innerworks.stats import Array, Half
from innerworks.text import TextBatch

MATERIAL = "agreement"
ROWS = 32  # prompts of one backward pass


@dataclass(frozen=True, kw_only=True)
class Side:
    """The prompts of one half. parts: the same in smaller batches; strata: of the units, in the order of their numbers."""

    batch: TextBatch
    asked: Asked
    strata: tuple[str, ...]
    parts: tuple[tuple[TextBatch, Asked], ...]

    def by_unit(self, by_row: Float[np.ndarray, "*some row"]) -> Float[np.ndarray, "*some unit"]:
        """Average rows to units."""
        units = self.batch.units.numpy(force=True)
        of = (np.arange(len(self.strata))[:, None] == units).astype(np.float64)
        return by_row @ (of / of.sum(axis=1, keepdims=True)).T


def sides(model: Model, per_unit: int) -> dict[Half, Side]:
    """So many prompts of each template, by half. Raises TextError where the tokenizer leaves too few, UsageError without one."""
    found = prompts_of(model, MATERIAL, agreeing)
    return {half: _side([one for one in found if one.half == half], per_unit) for half in ("discovery", "confirmation")}


def _side(prompts: list[Prompt], per_unit: int) -> Side:
    by_unit: dict[str, list[Prompt]] = {}
    for one in prompts:
        by_unit.setdefault(one.unit, []).append(one)
    chosen = [one for some in by_unit.values() for one in some[:per_unit]]
    batch, asked, strata = batch_of(chosen, MATERIAL)
    parts = [batch_of(chosen[start : start + ROWS], MATERIAL)[:2] for start in range(0, len(chosen), ROWS)]
    return Side(batch=batch, asked=asked, strata=tuple(strata), parts=tuple(parts))


def contributions(
    model: Model, side: Side, mean: Mean, *, step: Callable[[], None] = lambda: None
) -> Float[np.ndarray, "unit layer neuron"]:
    """What the logit difference owes to every neuron, by template, in logits; above zero: it serves agreement."""
    rows: list[Array] = []
    for batch, asked in side.parts:
        rows.append(-attributions(model, [batch], mean, difference(model, asked), step=step))
    return np.moveaxis(side.by_unit(np.moveaxis(np.concatenate(rows), 0, -1)), -1, 0)
