"""How well does each neuron agree with its match on documents that did not choose it, and how sure is that?

The match, its sign and the rotated match are fixed. Sums are per document; a correlation is over all places, and its uncertainty
is that of leaving out documents one by one (the jackknife): of U documents, `U r - (U - 1) r_without_d` is document d's part in
the correlation (its pseudo-value), and by how much these differ makes the interval. Of a neuron that fires in one document only,
nothing is sure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model import Model
from innerworks.neurons.universal.activations import by_block
from innerworks.neurons.universal.match import FLAT, SIDES, Matches, rotation
from innerworks.neurons.universal.stretches import Texts
from innerworks.stats import Array, Estimate, estimate


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """On confirmation documents; arrays `[layer, neuron]`. excess: correlation with the match minus that with the rotated one."""

    correlation: Array
    baseline: Array
    excess: Estimate


def agreement(
    models: tuple[Model, Model],
    texts: Texts,
    found: Matches,
    *,
    seed: int,
    step: Callable[[int], None] = lambda places: None,
) -> Agreement:
    """Correlate each neuron of A with its match, and with its rotated match. step: called with places read."""
    a, b = models
    sides = [[one.sides[which] for one in texts.stretches] for which in (0, 1)]
    units = torch.tensor(texts.unit_of_each_place)
    parts, done = [], 0
    for layers, own in by_block(a, sides[0], device=a.device, step=step):
        sums = _Sums.of(own, units.to(own.device), len(texts.strata))
        mine = slice(done, done + len(layers))
        number = 0
        for _, others in by_block(b, sides[1], device=a.device, step=step):
            for other in others:
                _add(sums, other, number, found, mine, seed)
                number += 1
        parts.append(_settled(sums, found.correlation[:, mine].sign(), texts.strata))
        done += len(layers)
    return Agreement(
        correlation=np.concatenate([one.correlation for one in parts]),
        baseline=np.concatenate([one.baseline for one in parts]),
        excess=_joined([one.excess for one in parts]),
    )


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Sums per unit over places: of x (a neuron of A), of y (its match, and the rotated one), of squares and products."""

    own: Tensor  # [layer, place, neuron]
    units: Tensor
    n: Tensor  # [unit]
    x: Tensor  # [unit, layer, neuron]
    xx: Tensor
    y: Tensor  # [side, unit, layer, neuron]
    yy: Tensor
    xy: Tensor

    @classmethod
    def of(cls, own: Tensor, units: Tensor, count: int) -> "_Sums":
        layers, _, neurons = own.shape
        empty = torch.zeros(len(SIDES), count, layers, neurons, dtype=torch.double, device=own.device)
        n = torch.bincount(units, minlength=count).double()
        x = torch.stack([_by_unit(one, units, count) for one in own], dim=1)
        xx = torch.stack([_by_unit(one.double().square(), units, count) for one in own], dim=1)
        return cls(own=own, units=units, n=n, x=x, xx=xx, y=empty, yy=empty.clone(), xy=empty.clone())


def _by_unit(values: Float[Tensor, "place neuron"], units: Tensor, count: int) -> Float[Tensor, "unit neuron"]:
    return torch.zeros(count, values.shape[1], dtype=torch.double, device=values.device).index_add_(0, units, values.double())


def _add(sums: _Sums, other: Float[Tensor, "place neuron"], number: int, found: Matches, mine: slice, seed: int) -> None:
    """Add what one layer of B is matched with."""
    turned = rotation(other.shape[1], number, seed=seed).to(other.device)
    for side in range(len(SIDES)):
        layers, neurons = (found.layer[side, mine] == number).nonzero(as_tuple=True)
        index = found.index[side, mine][layers, neurons]
        y = (other[:, index] if SIDES[side] == "neurons" else other @ turned[:, index]).double()
        x = sums.own[layers, :, neurons].T.double()
        for kept, values in ((sums.y, y), (sums.yy, y.square()), (sums.xy, x * y)):
            kept[side][:, layers, neurons] = _by_unit(values, sums.units, len(sums.n))


def _settled(sums: _Sums, sign: Tensor, strata: Sequence[str]) -> Agreement:
    whole = [one.sum(dim=-3, keepdim=True) for one in (sums.x, sums.xx, sums.y, sums.yy, sums.xy)]
    every = [one - part for one, part in zip(whole, (sums.x, sums.xx, sums.y, sums.yy, sums.xy), strict=True)]
    n = sums.n[:, None, None]
    overall = _correlation(n.sum(), *whole) * sign[:, None]  # [side, 1, layer, neuron]
    without = _correlation(n.sum() - n, *every) * sign[:, None]
    units = len(sums.n)
    excess = units * (overall[0] - overall[1]) - (units - 1) * (without[0] - without[1])
    correlation, baseline = overall[:, 0].numpy(force=True)
    return Agreement(correlation=correlation, baseline=baseline, excess=estimate(excess.numpy(force=True), strata))


def _correlation(n: Tensor, x: Tensor, xx: Tensor, y: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """Pearson's, from sums; 0 where a side is constant."""
    spread_x, spread_y = (square - one.square() / n for one, square in ((x, xx), (y, yy)))
    varies = (spread_x > FLAT**2 * xx) & (spread_y > FLAT**2 * yy)
    return torch.where(varies, (xy - x * y / n) / (spread_x * spread_y).clamp(min=0).sqrt(), 0.0)


def _joined(parts: Sequence[Estimate]) -> Estimate:
    mean, se, positive = (np.concatenate([getattr(one, name) for one in parts]) for name in ("mean", "se", "positive"))
    return Estimate(mean=mean, se=se, n=parts[0].n, df=parts[0].df, positive=positive)
