"""The prompts that ablations of heads are judged on, beside text: by material, or why a model has none.

1. `agreement`: a subject, a noun of the other number, and the verb that is asked for (`model/prompts.py`).
2. `lists`: three members of an ordered class in a row, and the next one asked for (`circuits/ordinals.py`). The unit is the
   run of members, over all ways of writing it down.
"""

from transformers import PreTrainedTokenizerBase

from innerworks.heads.circuits import ordinals
from innerworks.model import Model
from innerworks.model.prompts import Make, Prompt, agreeing, prompts_of


def prompts(model: Model, material: str) -> list[Prompt]:
    """All prompts of a material. Raises TextError where this model's tokenizer leaves too few, UsageError where it has none."""
    return prompts_of(model, material, MATERIALS[material])


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
MATERIALS: dict[str, Make] = {"agreement": agreeing, "lists": _lists}
