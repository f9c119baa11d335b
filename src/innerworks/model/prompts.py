"""Prompts as a material: what is asked after the last token of each, on two halves, or why a model cannot be asked.

1. A unit is what is no independent evidence by itself: a template, over several nouns; a run of ordered words, over all ways of
   writing it down.
2. `agreement`: a subject, a noun of the other number, and the verb that is asked for (`text/tasks/agreement.py`).
3. What is read off at the last token: the logits of right answers less those of wrong ones, or the loss of the right ones.

Discovery prompts give the means that ablation puts in a part's place; harm is read off confirmation prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from innerworks.errors import TextError
from innerworks.model.harms import Metric
from innerworks.model.model import Model
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


Make = Callable[[PreTrainedTokenizerBase], list[Prompt]]


def prompts_of(model: Model, material: str, make: Make) -> list[Prompt]:
    """All prompts of a material. Raises TextError where this model's tokenizer leaves too few, UsageError where it has none."""
    found = make(model.tokenizer)
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


def agreeing(tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """The prompts of the agreement task, as a tokenizer cuts them."""
    return [
        Prompt(tokens=one.tokens, answers=one.answers, foils=one.foils, unit=one.unit, stratum=one.stratum, half=one.half)
        for one in agreement(tokenizer)
    ]


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


# --- what is read off at the last token --------------------------------------------------------------------------


def difference(model: Model, asked: Asked) -> Metric:
    """The logits of right answers less those of wrong ones, for each row of the batch that is asked this."""

    def read(batch: TextBatch, final: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, " batch"]:
        logits = _last_logits(model, batch, final)
        right, wrong = (logits.gather(1, ids.to(logits.device)).mean(dim=1) for ids in (asked.answers, asked.foils))
        return right - wrong

    return read


def answer_loss(model: Model, asked: Asked) -> Metric:
    """The loss of any right answer, in nats."""

    def read(batch: TextBatch, final: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, " batch"]:
        logits = _last_logits(model, batch, final)
        return logits.logsumexp(dim=1) - logits.gather(1, asked.answers.to(logits.device)).logsumexp(dim=1)

    return read


def _last_logits(model: Model, batch: TextBatch, final: Tensor) -> Float[Tensor, "batch vocab"]:
    last = (batch.mask.sum(dim=1) - 1).to(final.device)
    return model.readout(final[torch.arange(len(last), device=final.device), last]).float()
