"""What happens to an answer when a few neurons are silenced or doubled at the last token of its prompt?

Every question is a row of its own: a prompt, an answer, the neurons that are changed there, by which factor. Rows of prompts of
one length are computed together, whatever they ask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model import Change, Model, Run
from innerworks.model.matched import Place
from innerworks.neurons.knowledge.last import Tokens, clean_runs, last_only, log_probability, padded, repeated
from innerworks.sites import Site

ROWS = 256
SILENT, DOUBLED = 0.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """What becomes of an answer (any of several) after a prompt when these neurons are multiplied by a factor?"""

    tokens: Tokens
    answers: tuple[int, ...]
    neurons: tuple[Place, ...]
    factor: float


@torch.no_grad()
def moved(
    model: Model, questions: Sequence[Question], *, step: Callable[[int], None] = lambda rows: None
) -> Float[np.ndarray, "two question"]:
    """The log-probability of each answer, in nats: as it is, and with the neurons changed."""
    found = torch.zeros(2, len(questions), dtype=torch.float64)
    prompts = list(dict.fromkeys(one.tokens for one in questions))
    for numbers, clean in clean_runs(model, prompts):
        row_of = {prompts[number]: row for row, number in enumerate(numbers)}
        here = [i for i, one in enumerate(questions) if one.tokens in row_of]
        for start in range(0, len(here), ROWS):
            some = here[start : start + ROWS]
            asked = [questions[i] for i in some]
            first = min(layer for one in asked for layer, _ in one.neurons)
            many = repeated(clean, torch.tensor([row_of[one.tokens] for one in asked]), first=first)
            answers = padded([one.answers for one in asked])
            finals = many.final, _changed(model, many, asked)
            found[:, some] = torch.stack([log_probability(model, one, answers).double().cpu() for one in finals])
            step(len(some))
    return found.numpy()


def _changed(model: Model, many: Run, asked: Sequence[Question]) -> Float[Tensor, "row one d_model"]:
    """The last token of each row, its own neurons multiplied."""
    factors: dict[int, Tensor] = {}
    for row, one in enumerate(asked):
        for layer, neuron in one.neurons:
            whole = factors.setdefault(layer, torch.ones(len(asked), 1, model.anatomy.neurons))
            whole[row, 0, neuron] = one.factor
    where = last_only(many)
    edits = [
        Change(site=Site(layer=layer, kind="neurons"), value=value, how="times", positions=where, says=f"neurons of L{layer}")
        for layer, value in sorted(factors.items())
    ]
    return model.run(many.tokens, edit=edits, resume=many, suffix=True, logits="none").final
