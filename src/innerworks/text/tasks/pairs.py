"""What is a task's item? Two prompts that agree token by token but for one word, and what each is rightly followed by.

1. Prompts are aligned: equally many tokens, different at one position alone, and their answers are single tokens in that very
   place (some tokenizers write a word otherwise at the start of a text).
2. Positions are found by the tokenizer, not counted in words: by which token another word there would change.

What it does not do: words of several tokens. Such items are left out by who makes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from innerworks.stats import Half
from innerworks.text.reading import opening_tokens


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A clean prompt and its corrupt twin. What is right after the one is wrong after the other."""

    unit: str  # what is counted: items of one unit are no independent evidence
    stratum: str
    half: Half
    clean: str
    corrupt: str
    tokens: tuple[int, ...]  # of the clean prompt, as the tokenizer opens a text
    corrupt_tokens: tuple[int, ...]
    answers: tuple[int, ...]  # next tokens that are right after the clean prompt
    foils: tuple[int, ...]  # the same words as the corrupt prompt wants them, one for each answer
    positions: Mapping[str, int]  # named tokens


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of a text, opened as the tokenizer opens it; without the end that some put behind."""
    ids = tuple(tokenizer.encode(text))
    closed = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id
    return ids[:-1] if closed else ids


def unknown(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bool:
    """Does a text hold a word that the tokenizer does not know? Its opening does not count: OPT's is the unknown token."""
    return tokenizer.unk_token_id in ids[len(opening_tokens(tokenizer)) :]


def only_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    """The position at which two texts differ; None where they are not aligned, or differ at several or none."""
    if len(one) != len(other):
        return None
    places = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return places[0] if len(places) == 1 else None


def next_token(tokenizer: PreTrainedTokenizerBase, prompt: str, word: str) -> int | None:
    """The single token by which a prompt goes on with a word; None where it takes several, or changes what stands before."""
    before, whole = encoded(tokenizer, prompt), encoded(tokenizer, f"{prompt} {word}")
    fits = len(whole) == len(before) + 1 and whole[:-1] == before and whole[-1] != tokenizer.unk_token_id
    return whole[-1] if fits else None


def next_tokens(
    tokenizer: PreTrainedTokenizerBase, prompt: str, words: Iterable[tuple[str, str]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens of pairs of words after a prompt: of those alone of which both are single tokens, and different ones."""
    found = [(next_token(tokenizer, prompt, one), next_token(tokenizer, prompt, other)) for one, other in words]
    kept = [(a, b) for a, b in found if a is not None and b is not None and a != b]
    return tuple(a for a, _ in kept), tuple(b for _, b in kept)
