"""Which heads would look at the token before, or at copies of a token, by their weights alone? QK circuits.

1. *Previous token*, where positions are learned: score every position's embedding against every earlier one,
   `(pos W_Q + b_Q)(pos W_K + b_K)ᵀ`, and count the positions whose best key is the one just before them.
2. *Duplicate token*: score every token of a sample against all of them, `(e W_Q + b_Q)(e W_K + b_K)ᵀ`, and count the tokens whose
   own key is among the ten best. `e` is the embedding, for heads above block 0 with what its feed-forward adds (`embedding.py`).
3. Rotary positions: there is no embedding of positions, so no circuit of weights looks at the previous token by itself (its twin
   is the pattern on random tokens, which every scan measures); and tokens are scored by the mean over a grid of distances.
4. Null: mismatched parts, the queries of one head with the keys of another, of another layer. Without rotation by position the
   dimensions in between have no names and are joined through a random rotation (`circuits/nulls.py`); with it they have (their
   frequencies), and are joined as they are.

All streams are divided by the scale their norm would divide them by; gains and biases are the model's. Elhage et al. 2021
(transformer-circuits.pub/2021/framework). What it does not do: label. What a head reads in context is more than an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.errors import UnsupportedModel
from innerworks.heads.circuits.embedding import as_read, effective
from innerworks.heads.circuits.nulls import DRAWS_PER_HEAD, MOST_DRAWS, TURNS
from innerworks.heads.composition.between import rotary, turns
from innerworks.model import Model
from innerworks.stats import Array

SAMPLE = 256  # tokens scored against each other
BEST = 10  # of them count as hits: chance is BEST / SAMPLE
POSITIONS = 128  # learned positions scored against each other
AT_ONCE = 64  # pairs of heads

Share = Callable[[Float[Tensor, "pair row row"]], Float[Tensor, " pair"]]


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What heads ask and offer for some rows of the stream. Keys are as the grid's mean distance turns them."""

    queries: Float[Tensor, "some_head row d_head"]
    keys: Float[Tensor, "some_head row d_head"]


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """A share per head `[layer, head]`, and those of mismatched parts."""

    value: Array
    null: Array


def duplicates(model: Model, ids: Int[Tensor, " row"], *, seed: int = 0) -> Circuit:
    """How many tokens of a sample find their own key among the ten best, by weights? A share; chance is 10 / (tokens in sample).

    Raises UnsupportedModel where no bilinear form between tokens exists.
    """
    embedding, between = effective(model, ids), turns(model)
    ends = []
    for layer, turn in enumerate(between):
        rows = as_read(model, embedding["whole" if layer else "raw"])
        query, key = _ends(model, layer, rows)
        ends.append(Ends(queries=query, keys=key @ turn.mean(dim=0).to(key)))
    return _circuit(model, ends, _own_among_best, seed)


def previous_tokens(model: Model, *, seed: int = 0) -> Circuit:
    """At how many positions is the best key the one just before, by weights? A share; 1 for a pure previous-token head.

    Raises UnsupportedModel in families that learn no embeddings of positions.
    """
    if model.adapter.positions is None:
        raise UnsupportedModel(
            f"{model.name} learns no embeddings of positions, so no weights alone look at the previous token. "
            "Look at what its heads attend to on random tokens: their pattern score."
        )
    turns(model)  # refuses scores that are not bilinear
    table = model.weights.W_pos()[:POSITIONS].float()
    rows = as_read(model, table + model.weights.W_E().float().mean(dim=0))
    ends = [Ends(queries=query, keys=key) for query, key in (_ends(model, at, rows) for at in range(model.anatomy.layers))]
    return _circuit(model, ends, _previous_is_best, seed)


def _ends(model: Model, layer: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys `[head, row, d_head]` of one layer, of rows that are already divided by their scale."""
    weights = model.weights
    query = rows @ weights.W_Q(layer, fold=True).float() + weights.b_Q(layer, fold=True).float()[:, None]
    key = rows @ weights.W_K(layer, fold=True, per_head=True).float()
    return query, key + weights.b_K(layer, fold=True, per_head=True).float()[:, None]


def _own_among_best(scores: Float[Tensor, "pair row row"]) -> Float[Tensor, " pair"]:
    """Ties count half: a head that scores all keys alike prefers none."""
    own = scores.diagonal(dim1=1, dim2=2)[..., None]
    rank = (scores > own).sum(dim=2) + ((scores == own).sum(dim=2) - 1) / 2
    return (rank < BEST).float().mean(dim=1)


def _previous_is_best(scores: Float[Tensor, "pair row row"]) -> Float[Tensor, " pair"]:
    """Of keys 1 to the query itself: the first position is where heads rest. Queries from 2 on."""
    seen = torch.ones_like(scores[0], dtype=torch.bool).tril()
    seen[:, 0] = False
    best = scores.masked_fill(~seen, -torch.inf)[:, 2:].argmax(dim=2)
    return (best == torch.arange(1, scores.shape[1] - 1, device=scores.device)).float().mean(dim=1)


def _circuit(model: Model, ends: list[Ends], share: Share, seed: int) -> Circuit:
    queries, keys = torch.cat([one.queries for one in ends]), torch.cat([one.keys for one in ends])
    heads = len(queries)
    own = torch.arange(heads)
    asks, offers, turn = _mismatched(model, heads, seed)
    value = _shares(queries, keys, own, own, None, share)
    return Circuit(value=value.reshape(model.anatomy.layers, -1), null=_shares(queries, keys, asks, offers, turn, share))


def _shares(queries: Tensor, keys: Tensor, asks: Tensor, offers: Tensor, turn: Tensor | None, share: Share) -> Array:
    found = []
    for some in torch.arange(len(asks)).split(AT_ONCE):
        query = queries[asks[some]]
        query = query if turn is None else query @ turn[some % len(turn)]
        found.append(share(query @ keys[offers[some]].mT))
    return torch.cat(found).double().numpy(force=True)


def _mismatched(model: Model, heads: int, seed: int) -> tuple[Int[Tensor, " draw"], Int[Tensor, " draw"], Tensor | None]:
    """Queries of one head, keys of another, of another layer where there are several; and what joins them."""
    rng, per_layer = np.random.default_rng([seed, 3]), model.anatomy.heads
    draws = min(DRAWS_PER_HEAD * heads, MOST_DRAWS)
    asks = rng.integers(heads, size=draws)
    first = asks - asks % per_layer if heads > per_layer else asks
    offers = (first + rng.integers(per_layer if heads > per_layer else 1, max(2, heads), size=draws)) % heads
    if rotary(model):
        return torch.from_numpy(asks), torch.from_numpy(offers), None
    generator, width = torch.Generator().manual_seed(seed), model.anatomy.d_head
    q, r = torch.linalg.qr(torch.randn(TURNS, width, width, generator=generator))
    turned = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    return torch.from_numpy(asks), torch.from_numpy(offers), turned.to(model.device)
