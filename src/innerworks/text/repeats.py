"""Generated text: sequences of random tokens, one repeat each, every sequence with a gap of its own.

In `filler | segment | filler | the same segment | filler` nothing but the repeat can be predicted, and only from context.
Gaps and starts differ between sequences, so a head with a fixed offset cannot look like one that follows the repeat.
Random tokens are drawn without replacement: each token of the second copy has exactly one earlier copy.
"""

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from innerworks.errors import TextError

LENGTH = 128  # tokens, before what the tokenizer puts in front
GAPS = (16, 96)  # between the copies, both ends included
SEGMENT = 32  # tokens repeated, at most (never more than the gap)


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """One sequence of random tokens: `tokens[start + gap + i] == tokens[start + i]` for i < segment."""

    tokens: tuple[int, ...]
    start: int
    gap: int
    segment: int


def random_repeats(vocabulary: list[int], count: int, *, seed: int, longest: int = LENGTH) -> list[Repeat]:
    """Draw sequences of `longest` tokens (128 at most) from a vocabulary of token ids."""
    length = min(LENGTH, longest)
    last_gap = min(GAPS[1], length - SEGMENT)
    if last_gap <= GAPS[0]:
        raise TextError(
            f"The model reads {longest} tokens at most; sequences with a repeat need at least {GAPS[0] + SEGMENT + 1}."
        )
    if len(vocabulary) < 2 * length:
        raise TextError(f"The tokenizer has {len(vocabulary)} ordinary tokens; random sequences of {length} need {2 * length}.")
    rng = np.random.default_rng(seed)
    return [_repeat(rng, vocabulary, length, last_gap) for _ in range(count)]


def _repeat(rng: np.random.Generator, vocabulary: list[int], length: int, last_gap: int) -> Repeat:
    gap = int(rng.integers(GAPS[0], last_gap + 1))
    segment = min(gap, SEGMENT)
    start = int(rng.integers(0, length - gap - segment + 1))
    tokens = np.array(vocabulary)[rng.choice(len(vocabulary), size=length, replace=False)]
    tokens[start + gap : start + gap + segment] = tokens[start : start + segment]
    return Repeat(tokens=tuple(int(t) for t in tokens), start=start, gap=gap, segment=segment)


def ordinary_tokens(tokenizer: PreTrainedTokenizerBase, vocab: int) -> list[int]:
    """Ids that stand for visible text: neither special nor added tokens, nor white space, nor parts of a character."""
    outside = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ids = [id for id in range(min(len(tokenizer), vocab)) if id not in outside]
    texts = [str(tokenizer.decode([id])) for id in ids]
    return [id for id, text in zip(ids, texts, strict=True) if text.strip() and "\N{REPLACEMENT CHARACTER}" not in text]
