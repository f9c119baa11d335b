"""Which facts does a model know? Those whose answer it prefers to all others of the relation, however they are asked for.

After each prompt the answers of the relation are compared by their logits. A fact is known where its own is the first after more
than half of the prompts of either half. What it does not ask: whether the model would say the answer, of all words there are.
"""

from collections.abc import Sequence

import torch

from innerworks.model import Model
from innerworks.neurons.knowledge.facts import HALVES, Fact
from innerworks.neurons.knowledge.last import Tokens, by_length
from innerworks.stats import Half

OF_PROMPTS = 0.5


@torch.no_grad()
def known(model: Model, facts: Sequence[Fact]) -> list[Fact]:
    """The facts that a model knows, in their order."""
    rivals = {one.relation: sorted({other.answer for other in facts if other.relation == one.relation}) for one in facts}
    asked: list[tuple[int, Half, Tokens]] = [
        (number, half, tokens) for number, one in enumerate(facts) for half in HALVES for tokens in one.prompts[half]
    ]
    right: dict[tuple[int, Half], list[bool]] = {}
    for some in by_length([tokens for *_, tokens in asked]):
        run = model.run(torch.tensor([asked[i][2] for i in some]), logits="last")
        for i, logits in zip(some, run.require_logits, strict=True):
            number, half, _ = asked[i]
            answers = rivals[facts[number].relation]
            right.setdefault((number, half), []).append(answers[int(logits[answers].argmax())] == facts[number].answer)

    def enough(of: list[bool]) -> bool:
        return sum(of) > OF_PROMPTS * len(of)

    return [one for number, one in enumerate(facts) if all(enough(right[number, half]) for half in HALVES)]
