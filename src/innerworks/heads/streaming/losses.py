"""What does a model lose when it keeps only part of the text? Window, sinks and window, and full recomputation, token by token.

1. Texts several times longer than the cache: documents of one domain end to end, each document in one text only, cut to the
   same length. The unit of statistics is the text.
2. Every way keeps the same number of tokens (256), the newest included: the latest ones alone; 1, 2, 4 or 8 first ones and the
   rest latest; and, as the reference, a fresh forward over the latest ones (dear, so on evenly spaced blocks of positions).
3. Next-token losses at all positions past the first time that the cache is full; up to there all ways are the same forward.

In a block of the reference the first position sees exactly as many tokens as the cache holds and the last 15 more, which if
anything makes the reference better. As in Xiao et al. 2023 (arXiv:2309.17453), a recomputed window gets no BOS in front.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from innerworks.errors import TextError, UsageError
from innerworks.heads.streaming.cache import RollingCache, advance
from innerworks.heads.streaming.rotation import Rotation, rotations
from innerworks.model import Model
from innerworks.model.tally import Tally
from innerworks.stats import Array
from innerworks.text import Corpus

CACHE = 256  # tokens that every way keeps
TIMES = 3  # length of a text, in caches
PER_DOMAIN = 2  # texts
BLOCKS, BLOCK = 4, 16  # of positions at which the reference is computed, per text
ROWS = 32  # texts streamed side by side
RECOMPUTED_ROWS = 8  # windows recomputed side by side
Progress = Callable[[int, int], None]  # tokens done, tokens in all


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of keeping part of a text: how many first tokens stay beside the latest ones; None: everything is computed afresh."""

    name: str
    sinks: int | None


WINDOW_ONLY, FOUR_SINKS, RECOMPUTATION = "window", "sinks_4", "recomputation"
WAYS = (
    Way(name=WINDOW_ONLY, sinks=0),
    *(Way(name=f"sinks_{sinks}", sinks=sinks) for sinks in (1, 2, 4, 8)),
    Way(name=RECOMPUTATION, sinks=None),
)

DECIDING = tuple(way for way in WAYS if way.name in (WINDOW_ONLY, FOUR_SINKS, RECOMPUTATION))  # those that findings compare


@dataclass(frozen=True, kw_only=True)
class StreamText:
    """A long text: what it is made of, its domain, its tokens."""

    id: str
    stratum: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class StreamingLosses:
    """Next-token losses in nats, by way: `[text, position]`, NaN at positions where the way was not measured.

    positions: of the reading token, the first just past a full cache. The loss is that of the token after it.
    """

    by_way: dict[str, Array]
    positions: tuple[int, ...]
    texts: tuple[StreamText, ...]
    cache: int

    @property
    def strata(self) -> list[str]:
        """The domain of each text."""
        return [text.stratum for text in self.texts]

    def per_text(self, way: str, *, where: str | None = None) -> Array:
        """Mean loss per text; where: only at positions at which this other way was measured too."""
        losses = self.by_way[way]
        return np.nanmean(losses if where is None else np.where(np.isnan(self.by_way[where]), np.nan, losses), axis=1)


def texts_of(
    model: Model, corpus: Corpus, *, cache: int = CACHE, times: int = TIMES, per_domain: int = PER_DOMAIN
) -> list[StreamText]:
    """Put documents of one domain end to end (in the order of their text's hash) until each text has `times * cache` tokens.

    What is left over in a domain is not used, nor what a group (a book) has beyond one text: no unit is in two texts.
    """
    by_domain: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for document in corpus.documents:
        by_domain[document.domain][document.unit].append(document.text)
    found: list[StreamText] = []
    for domain, units in by_domain.items():
        ids: list[str] = []
        said: list[str] = []
        texts: list[StreamText] = []
        for id, parts in sorted(units.items(), key=lambda unit: hashlib.sha256("".join(unit[1]).encode()).hexdigest()):
            ids, said = [*ids, id], [*said, *parts]
            tokens = model.tokenize("\n\n".join(said))[0][0].tolist()
            if len(tokens) >= times * cache:
                texts.append(StreamText(id="+".join(ids), stratum=domain, tokens=tuple(tokens[: times * cache])))
                ids, said = [], []
        found += texts[:per_domain]
    if len(found) < 2:
        raise TextError(
            f"{corpus.name} gives {len(found)} texts of {times * cache} tokens: add documents, or take a smaller cache."
        )
    return found


def cost(texts: Sequence[StreamText], ways: Sequence[Way] = WAYS, *, cache: int = CACHE, blocks: int = BLOCKS) -> tuple[int, int]:
    """How many tokens are to be streamed one at a time, and how many recomputed in whole windows?"""
    streamed = sum(len(text.tokens) - cache - 1 for text in texts) * sum(way.sinks is not None for way in ways)
    recomputed = len(texts) * blocks * (cache + BLOCK - 1) * sum(way.sinks is None for way in ways)
    return streamed, recomputed


def streaming_losses(
    model: Model,
    texts: Sequence[StreamText],
    *,
    ways: Sequence[Way] = WAYS,
    cache: int = CACHE,
    blocks: int = BLOCKS,
    progress: Progress = lambda done, total: None,
) -> StreamingLosses:
    """What does each way of keeping part of a text cost, past the first full cache?

    texts: all of one length, longer than the cache. Returns losses in nats per token; exp of their mean is the perplexity. An
    untrained model loses about log(vocab) nats in every way.
    """
    tokens = _together(texts, cache)
    turns = rotations(model, cache)
    read = Tally(says=progress, total=sum(cost(texts, ways, cache=cache, blocks=blocks)))
    by_way = {way.name: _nothing(tokens, cache) for way in ways}
    for rows in (slice(first, first + ROWS) for first in range(0, len(tokens), ROWS)):
        full = DynamicCache()
        advance(model, tokens[rows, :cache], full)
        for way in ways:
            if way.sinks is None:
                by_way[way.name][rows] = _recomputed(model, tokens[rows], cache, blocks, read)
            else:
                by_way[way.name][rows] = _streamed(model, tokens[rows], rolling(full, turns, sinks=way.sinks, size=cache), read)
    positions = tuple(range(cache, tokens.shape[1] - 1))
    return StreamingLosses(by_way=by_way, positions=positions, texts=tuple(texts), cache=cache)


def _together(texts: Sequence[StreamText], cache: int) -> Int[Tensor, "text seq"]:
    lengths = {len(text.tokens) for text in texts}
    if len(lengths) != 1 or min(lengths) < cache + 1 + BLOCK:
        raise UsageError(
            f"Texts must have one length, {BLOCK + 1} tokens beyond the cache of {cache} or more; got {sorted(lengths)}."
        )
    return torch.tensor([text.tokens for text in texts])


def _nothing(tokens: Tensor, cache: int) -> Array:
    return np.full((len(tokens), tokens.shape[1] - 1 - cache), np.nan)


def rolling(full: DynamicCache, turns: tuple[Rotation | None, ...], *, sinks: int, size: int) -> RollingCache:
    """A rolling cache that has just read what a plain one has: the same forward up to here, whatever leaves next."""
    cache = RollingCache(turns, sinks=sinks, window=size - sinks)
    layers: Any = full.layers
    for layer, one in enumerate(layers):
        cache.update(one.keys, one.values, layer)
    return cache


@torch.no_grad()
def _streamed(model: Model, tokens: Int[Tensor, "text seq"], cache: RollingCache, read: Callable[[int], None]) -> Array:
    """Token by token, all texts side by side."""
    losses: list[Tensor] = []
    for place in range(cache.size, tokens.shape[1] - 1):
        final = advance(model, tokens[:, place : place + 1], cache)
        losses.append(_loss(model, final[:, 0], tokens[:, place + 1]))
        read(len(tokens))
    return torch.stack(losses, dim=1).double().numpy()


@torch.no_grad()
def _recomputed(model: Model, tokens: Int[Tensor, "text seq"], cache: int, blocks: int, read: Callable[[int], None]) -> Array:
    """A fresh forward for each block of positions: the first of them sees `cache` tokens."""
    losses = _nothing(tokens, cache)
    places = np.linspace(cache, tokens.shape[1] - 1 - BLOCK, blocks).round().astype(int)
    windows = [(text, int(place)) for place in dict.fromkeys(places) for text in range(len(tokens))]
    for first in range(0, len(windows), RECOMPUTED_ROWS):
        some = windows[first : first + RECOMPUTED_ROWS]
        rows = torch.stack([tokens[text, place - cache + 1 : place + BLOCK] for text, place in some])
        final = model.run(rows, logits="none").final[:, -BLOCK:]
        next_ones = torch.stack([tokens[text, place + 1 : place + 1 + BLOCK] for text, place in some])
        found = _loss(model, final.flatten(0, 1), next_ones.flatten()).view(len(some), BLOCK)
        for (text, place), one in zip(some, found, strict=True):
            losses[text, place - cache : place - cache + BLOCK] = one.numpy()
        read(rows.numel())
    return losses


def _loss(model: Model, final: Float[Tensor, "row d_model"], targets: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """Nats, on the CPU."""
    return cross_entropy(model.readout(final).float(), targets.to(final.device), reduction="none").cpu()
