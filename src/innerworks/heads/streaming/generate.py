"""Text without end at constant memory: the cache rolls, and each token is read with positions inside it.

1. The prompt goes in at once as far as the cache has room, then token by token.
2. The most likely token, or one drawn at a temperature, is handed out and read in turn; nothing else is kept.

The model forgets what leaves the window: this goes on fluently, it does not remember. Xiao et al. 2023, arXiv:2309.17453.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from innerworks.errors import UsageError
from innerworks.heads.streaming.cache import RollingCache, advance
from innerworks.model import Model

LONGEST_CHARACTER = 8  # tokens that may spell one character together
PLACE_HOLDER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, kw_only=True)
class Token:
    """One generated token.

    position: its place in the whole text, prompt included. text: what it adds, empty while a character is still incomplete.
    log_probability: of the model itself (at temperature 1), in nats.
    """

    id: int
    position: int
    text: str
    log_probability: float


def stream(
    model: Model,
    prompt: str | Int[Tensor, "one seq"],
    *,
    sinks: int = 4,
    window: int = 252,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Token]:
    """What does the model say, on and on? Tokens one by one, without end unless `max_new_tokens` is given.

    sinks, window: how many first and latest tokens stay in the cache (the newest is one of them). temperature: 0 takes the most
    likely token, 1 draws by the model's probabilities from `generator` (on the CPU; needed above 0). The end-of-text token is
    handed out like any other. Edits can be in force, by `with model.edited(...)` around the loop; their positions are places in
    the cache.
    """
    if temperature < 0 or (max_new_tokens is not None and max_new_tokens < 1):
        raise UsageError(f"temperature={temperature}, max_new_tokens={max_new_tokens}: at least 0, and at least 1 (or None).")
    if temperature > 0 and generator is None:
        raise UsageError("temperature above 0 draws at random: give generator=torch.Generator().manual_seed(...).")
    if model.hf.training:
        raise UsageError(f"{model.name} is in training mode. Call model.hf.eval() first.")
    tokens = (model.tokenize(prompt)[0] if isinstance(prompt, str) else prompt).cpu()
    if tokens.shape[0] != 1 or tokens.shape[1] == 0:
        raise UsageError(f"A prompt is one text of at least one token; got {tuple(tokens.shape)}.")
    cache = RollingCache.of(model, sinks=sinks, window=window)
    return _tokens(model, tokens, cache, max_new_tokens, temperature, generator)


def _tokens(
    model: Model,
    prompt: Int[Tensor, "one seq"],
    cache: RollingCache,
    most: int | None,
    temperature: float,
    generator: torch.Generator | None,
) -> Iterator[Token]:
    spell = _Speller(_tokenizer(model), prompt[0, -LONGEST_CHARACTER:].tolist())
    logits = next_logits(model, prompt, cache)
    for made in count() if most is None else range(most):
        chosen = choose(logits, temperature, generator)
        said = float(logits.log_softmax(dim=-1)[chosen])
        yield Token(id=chosen, position=prompt.shape[1] + made, text=spell(chosen), log_probability=said)
        if made + 1 != most:
            logits = next_logits(model, torch.tensor([[chosen]]), cache)


def _tokenizer(model: Model) -> PreTrainedTokenizerBase | None:
    try:
        return model.tokenizer
    except UsageError:  # a model of token ids alone
        return None


@torch.no_grad()
def next_logits(model: Model, tokens: Int[Tensor, "one seq"], cache: RollingCache) -> Float[Tensor, " vocab"]:
    """Read tokens of one text, at once as far as there is room, then one by one; logits after the last, float32, on the CPU."""
    first = min(tokens.shape[1], cache.room)
    final = advance(model, tokens[:, :first], cache)
    for place in range(first, tokens.shape[1]):
        final = advance(model, tokens[:, place : place + 1], cache)
    return model.readout(final[0, -1]).float().cpu()


def choose(logits: Float[Tensor, " vocab"], temperature: float, generator: torch.Generator | None) -> int:
    """The most likely token (temperature 0), or one drawn."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=generator))


class _Speller:
    """Turns ids into text as they come: several may spell one character, and spaces depend on what stands before."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, before: list[int]) -> None:
        self._tokenizer, self._before, self._waiting = tokenizer, before, list[int]()

    def __call__(self, id: int) -> str:
        if self._tokenizer is None:
            return ""
        self._waiting.append(id)
        known, all_of_it = self._decode(self._before), self._decode(self._before + self._waiting)
        if all_of_it.endswith(PLACE_HOLDER) and len(self._waiting) < LONGEST_CHARACTER:
            return ""
        self._before, self._waiting = self._waiting, []
        return all_of_it[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        assert self._tokenizer is not None
        text = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
