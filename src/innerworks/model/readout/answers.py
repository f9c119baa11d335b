"""Which token an answer is: given as an id, or as a string that is exactly one token."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from innerworks.errors import UsageError
from innerworks.model.model import Model

Answer = int | str | Sequence[int | str] | Int[Tensor, " batch"]


def token_ids(model: Model, answer: Answer, batch: int) -> Int[Tensor, " batch"]:
    """The token id of each text's answer. answer: one for all texts, or one per text; an id, or a string that is one token.

    Raises UsageError for a string of several tokens, naming its pieces, and for ids that are not in the vocabulary.
    """
    several = answer.tolist() if isinstance(answer, Tensor) else [answer] * batch if isinstance(answer, int | str) else answer
    if len(several) != batch:
        raise UsageError(f"There are {len(several)} answers for {batch} texts: give one for all, or one per text.")
    ids = [one if isinstance(one, int) else _one_token(model, one) for one in several]
    outside = [one for one in ids if not 0 <= one < model.anatomy.vocab]
    if outside:
        raise UsageError(f"Token ids must lie in 0..{model.anatomy.vocab - 1}; got {outside[0]}.")
    return torch.tensor(ids, device=model.device)


def _one_token(model: Model, text: str) -> int:
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = ", ".join(repr(piece) for piece in tokenizer.convert_ids_to_tokens(ids))
    if len(ids) != 1:
        start = "" if text.startswith(" ") or not text else f" Inside a text, words begin with a space: {' ' + text!r}."
        raise UsageError(f"{text!r} is {len(ids)} tokens ({pieces}), not one.{start} Or give a token id.")
    if ids[0] == tokenizer.unk_token_id and text != tokenizer.unk_token:
        raise UsageError(f"{text!r} is no token of {model.name}: its tokenizer knows it only as {pieces}.")
    return ids[0]
