"""How does the last token of many prompts fare when neurons there are changed? One clean run, then only last tokens.

1. Prompts of equal length are run once as they are, and their keys, values and streams kept.
2. Rows of that run are repeated as often as there are variants, and only the last token is computed again.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.errors import UsageError
from innerworks.model import Model, Run

Tokens = tuple[int, ...]


def by_length(prompts: Sequence[Tokens]) -> list[list[int]]:
    """Numbers of prompts that are equally long, shortest first."""
    found: dict[int, list[int]] = defaultdict(list)
    for number, tokens in enumerate(prompts):
        found[len(tokens)].append(number)
    return [found[length] for length in sorted(found)]


def clean_runs(model: Model, prompts: Sequence[Tokens]) -> Iterator[tuple[list[int], Run]]:
    """One clean run for each length, and the numbers of the prompts in it."""
    for some in by_length(prompts):
        tokens = torch.tensor([prompts[number] for number in some])
        yield some, model.run(tokens, record=model.sites("neurons"), keep="resume", logits="none")


def repeated(clean: Run, rows: Int[Tensor, " row"], *, first: int) -> Run:
    """The same run with its texts in other numbers: rows of it, each as often as it is named, to resume from layer `first`."""
    if clean.streams is None or clean.cache is None:
        raise UsageError("Rows can only be repeated of a run made with keep='resume'.")
    rows = rows.to(clean.tokens.device)
    return replace(
        clean,
        tokens=clean.tokens[rows],
        mask=clean.mask[rows],
        final=clean.final[rows],
        recorded={},
        streams={layer: stream[rows.to(stream.device)] for layer, stream in clean.streams.items() if layer == first - 1},
        cache=[
            (keys[rows.to(keys.device)], values[rows.to(values.device)]) if number == 0 or number >= first else (keys, values)
            for number, (keys, values) in enumerate(clean.cache)
        ],
    )


def last_only(run: Run) -> Tensor:
    """Positions for an edit: the last token of every text."""
    where = torch.zeros_like(run.mask)
    where[:, -1] = True
    return where


def log_probability(
    model: Model, final: Float[Tensor, "row seq d_model"], answers: Int[Tensor, "row answer"]
) -> Float[Tensor, " row"]:
    """Of any of each row's answers after its last token, in nats; -1 fills up rows with fewer answers."""
    log = model.readout(final[:, -1]).float().log_softmax(dim=-1)
    answers = answers.to(log.device)
    return log.gather(1, answers.clamp(min=0)).masked_fill(answers < 0, -torch.inf).logsumexp(dim=1)


def padded(answers: Sequence[Sequence[int]]) -> Int[Tensor, "row answer"]:
    """Answers as one tensor, rows with fewer filled up with -1."""
    width = max(len(one) for one in answers)
    return torch.tensor([[*one, *[-1] * (width - len(one))] for one in answers])
