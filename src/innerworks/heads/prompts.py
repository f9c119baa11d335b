"""Prompts as a material for ablations: what is asked after their last token, on two halves, or why a model has none.

1. `agreement`: a subject, a noun of the other number, and the verb that is asked for (`text/tasks/agreement.py`). The unit is a
   template, over several subjects in both numbers: nouns in one template fare alike.
2. `lists`: three members of an ordered class in a row, and the next one asked for (`circuits/ordinals.py`). The unit is the
   run of members, over all ways of writing it down.

Discovery prompts give the means that ablation puts in a head's place; harm is read off confirmation prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from innerworks.errors import TextError
from innerworks.heads.circuits import ordinals
from innerworks.model import Model
from innerworks.stats import CONSTANTS, Half
from innerworks.text import TextBatch
from innerworks.text.tasks import agreement


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt, and the tokens that are right and wrong after it (wrong ones one for each right one, or none at all)."""

    tokens: tuple[int, ...]
    answers: tuple[int, ...]
    foils: tuple[int, ...]
    unit: str
    stratum: str
    half: Half


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked after each text of a batch: token ids `[batch, answer]`."""

    answers: Int[Tensor, "batch answer"]
    foils: Int[Tensor, "batch foil"]


def prompts(model: Model, material: str) -> list[Prompt]:
    """All prompts of a material. Raises TextError where this model's tokenizer leaves too few, UsageError where it has none."""
    found = MATERIALS[material](model.tokenizer)
    units = {half: len({one.unit for one in found if one.half == half}) for half in ("discovery", "confirmation")}
    least = CONSTANTS.least_units
    if min(units.values()) < least:
        raise TextError(
            f"the tokenizer keeps {units['confirmation']} units of the material {material} as single tokens to confirm on, and "
            f"{units['discovery']} to discover on; {least} of each are the least"
        )
    longest, limit = max(len(one.tokens) for one in found), model.anatomy.max_positions
    if limit is not None and longest > limit:
        raise TextError(f"prompts of the material {material} have up to {longest} tokens, and the model reads {limit}")
    return found


def _agreement(tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    return [
        Prompt(tokens=one.tokens, answers=one.answers, foils=one.foils, unit=one.unit, stratum=one.stratum, half=one.half)
        for one in agreement(tokenizer)
    ]


def _lists(tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    kept, _ = ordinals.classes(tokenizer)
    return [
        Prompt(
            tokens=row.tokens,
            answers=(kept[row.kind].tokens[row.answer],),
            foils=(),
            unit=row.run,
            stratum=kept[row.kind].name,
            half=row.half,
        )
        for row in ordinals.rows(tokenizer, kept)
    ]


#: material -> its prompts for a tokenizer
MATERIALS: dict[str, Callable[[PreTrainedTokenizerBase], list[Prompt]]] = {"agreement": _agreement, "lists": _lists}


def batch_of(chosen: Sequence[Prompt], material: str) -> tuple[TextBatch, Asked, list[str]]:
    """Prompts as a batch, padded on the right, what is asked after each, and the stratum of each unit, units in order of name."""
    names = sorted({one.unit for one in chosen})
    number, strata = {name: i for i, name in enumerate(names)}, {one.unit: one.stratum for one in chosen}
    longest = max(len(one.tokens) for one in chosen)
    tokens = torch.tensor([[*one.tokens, *[0] * (longest - len(one.tokens))] for one in chosen])
    batch = TextBatch(
        tokens=tokens,
        mask=torch.arange(longest) < torch.tensor([len(one.tokens) for one in chosen])[:, None],
        words=torch.full_like(tokens, -1),
        marks=torch.zeros_like(tokens, dtype=torch.bool),
        units=torch.tensor([number[one.unit] for one in chosen]),
        alike=torch.tensor([number[one.unit] for one in chosen]),
        arcs=((),) * len(chosen),
        material=material,
        stratum="",
        half=chosen[0].half,
    )
    width = min(len(one.answers) for one in chosen)
    asked = Asked(
        answers=torch.tensor([one.answers[:width] for one in chosen]),
        foils=torch.tensor([one.foils[:width] for one in chosen], dtype=torch.long),
    )
    return batch, asked, [strata[name] for name in names]
