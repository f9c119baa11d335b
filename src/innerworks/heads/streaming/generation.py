"""Does generation go on past the window? How far what is generated strays from what the model would say after all of it.

1. Prompts fill the cache; from there on tokens are drawn at temperature 1, with the window alone or with four sinks beside it.
2. A judge, the same model, reads prompt and generated text at once; it forgets nothing but what a sliding window of the model's
   own hides in the layers that have one. At every token past the window the divergence `KL(streamed || judge)` says how much
   more the judge loses, in expectation, on what the stream says than on what it would say itself: 0 for a stream that forgets
   nothing that matters, in nats per token; the unit is the prompt.
3. Beside it, since a loop is easy to predict: the share of generated tokens that complete three in a row already generated.

Xiao et al. 2023, arXiv:2309.17453. It does not say whether the text is any good: the judge is no better than the model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from innerworks.heads.streaming.cache import RollingCache, advance
from innerworks.heads.streaming.losses import FOUR_SINKS, WINDOW_ONLY, rolling
from innerworks.heads.streaming.rotation import rotations
from innerworks.model import Model
from innerworks.stats import Array

GENERATED = {WINDOW_ONLY: 0, FOUR_SINKS: 4}  # way -> sinks
RUN = 3  # tokens in a row
ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What was generated past the window, by way: arrays are `[prompt, token]`.

    divergence: in nats; repeats: 1 where a token completes three in a row that were generated before.
    """

    tokens: Mapping[str, np.ndarray]
    divergence: Mapping[str, Array]
    repeats: Mapping[str, Array]


def generation(
    model: Model,
    prompts: Int[Tensor, "prompt seq"],
    *,
    new: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Generated:
    """Generate `new` tokens past prompts that fill the cache, in each way, and judge them."""
    turns = rotations(model, prompts.shape[1])
    tokens, divergence, repeats = {}, {}, {}
    total = len(GENERATED) * new

    for number, (way, sinks) in enumerate(GENERATED.items()):
        before = number * new
        full = DynamicCache()
        first = advance(model, prompts, full)
        cache = rolling(full, turns, sinks=sinks, size=prompts.shape[1])
        generator = torch.Generator().manual_seed(seed)
        said, streams = _draw(model, first, cache, new, generator, lambda done, before=before: progress(before + done, total))
        judged = _judge(model, torch.cat([prompts.to(said.device), said], dim=1), new)
        tokens[way], repeats[way] = said.numpy(force=True), repeated(said)
        divergence[way] = _divergence(model, streams, judged)
    return Generated(tokens=tokens, divergence=divergence, repeats=repeats)


@torch.no_grad()
def _draw(
    model: Model,
    final: Float[Tensor, "prompt seq d_model"],
    cache: RollingCache,
    new: int,
    generator: torch.Generator,
    done: Callable[[int], None],
) -> tuple[Int[Tensor, "prompt new"], Float[Tensor, "prompt new d_model"]]:
    """Draw token by token; also the streams that each was drawn from. The first is drawn before anything has left the cache."""
    tokens: list[Tensor] = []
    streams: list[Tensor] = []
    for made in range(new + 1):
        if made:
            streams.append(final[:, -1])  # the first that forgets is the one behind the first drawn token
        likely = model.readout(final[:, -1]).float().softmax(dim=-1).cpu()
        tokens.append(torch.multinomial(likely, 1, generator=generator))
        if made < new:
            final = advance(model, tokens[-1], cache)
        done(min(made, new))
    return torch.cat(tokens[:-1], dim=1).to(final.device), torch.stack(streams, dim=1)


@torch.no_grad()
def _judge(model: Model, tokens: Int[Tensor, "prompt seq"], new: int) -> Float[Tensor, "prompt new d_model"]:
    """The streams of a fresh forward over all of it, at the generated tokens."""
    finals = [model.run(some, logits="none").final[:, -new:] for some in tokens.split(8)]
    return torch.cat(finals)


@torch.no_grad()
def _divergence(
    model: Model, streamed: Float[Tensor, "prompt new d_model"], judged: Float[Tensor, "prompt new d_model"]
) -> Array:
    """KL of what the stream predicts from what the judge predicts."""
    found = []
    for own, theirs in zip(streamed.flatten(0, 1).split(ROWS_AT_ONCE), judged.flatten(0, 1).split(ROWS_AT_ONCE), strict=True):
        said, judge = (model.readout(one).float().log_softmax(dim=-1) for one in (own, theirs))
        found.append((said.exp() * (said - judge)).sum(dim=-1).cpu())
    return torch.cat(found).view(streamed.shape[:2]).double().numpy()


def repeated(tokens: Int[Tensor, "prompt new"]) -> Array:
    """Which tokens complete three in a row that were there before?"""
    found = np.zeros(tokens.shape)
    for row, ids in enumerate(tokens.tolist()):
        seen: set[tuple[int, ...]] = set()
        for end in range(RUN, len(ids) + 1):
            run = tuple(ids[end - RUN : end])
            found[row, end - 1] = run in seen
            seen.add(run)
    return found
