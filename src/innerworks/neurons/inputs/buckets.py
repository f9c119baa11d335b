"""Would what these token types show hold for others? Token types as units, beside documents.

The same few frequent token types stand in every document, so that documents agree on any accident of theirs; whether an effect
goes beyond these types only other types can show. So what the token itself decides must pass with types as units, too, where one
very frequent type (or a few) can never pass alone, since a t over units of which one holds all is 1.

1. Token types to test on are dealt to 64 buckets by their hash. Over all confirmation documents a bucket b adds up what a family
   gains, `G_b`, and the squares around the mean, `T_b`.
2. The share of variance is a ratio of sums, `ΣG / ΣT`: rows count alike, and buckets with few of them hardly. That it is at most
   the floor means that `G_b - floor T_b` is at most zero on average (Fieller 1954), which does not ask that buckets be alike in
   size; that is what the t test over buckets asks. More than zero must be gained in two thirds of the buckets, as of documents.
3. Types are the same in both halves of the documents, so that candidates must not be chosen by those tested on: discovery fits on
   a quarter of the types, looks at another one, and the other way round (`study.py`), and never at the half that is tested.

What it does not do: tell types that have a stem in common from types that have a letter in common; they are dealt apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.model.observe import State, zeros
from innerworks.neurons.inputs.design import BUCKETS, OF_THE_TOKEN
from innerworks.stats import Estimate

FAMILIES = ("token_class", "alphabet")  # of those that the token decides, what a kind rests on
_PLACES = [OF_THE_TOKEN.index(family) for family in FAMILIES]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one layer, as the fit on other token types is tested on them. gain: for each family that the token decides."""

    bucket: Int[Tensor, " row"]
    gain: Float[Tensor, "family row neuron"]
    total: Float[Tensor, "row neuron"]


def empty(layers: int, neurons: int) -> State:
    """Sums by bucket of token types."""
    return {
        "gain_by_type": torch.zeros(len(FAMILIES), BUCKETS, layers, neurons),
        "total_by_type": torch.zeros(BUCKETS, layers, neurons),
        "rows_by_type": zeros(BUCKETS),
    }


def add(state: State, layer: int, found: Sequence[Rows]) -> None:
    """Add the rows of a batch to the sums of their buckets."""
    if not found:
        return
    bucket = torch.cat([rows.bucket for rows in found])
    total = torch.cat([rows.total for rows in found])
    into = torch.nn.functional.one_hot(bucket, BUCKETS).to(total).mT
    state["total_by_type"][:, layer] += (into @ total).cpu()
    for i, place in enumerate(_PLACES):
        state["gain_by_type"][i, :, layer] += (into @ torch.cat([rows.gain[place] for rows in found])).cpu()


def count(state: State, buckets: Int[Tensor, " row"]) -> None:
    """Count the rows of some buckets."""
    state["rows_by_type"] += torch.bincount(buckets.cpu(), minlength=BUCKETS)


def moments(state: State) -> tuple[dict[str, np.ndarray], int]:
    """What a test over buckets needs, in mean totals of a bucket, and how many buckets have rows.

    `[family, layer, neuron]`: `by_type_mean` (the share of variance), `by_type_variance` (of gains), `by_type_covariance` (with
    totals), `by_type_positive` (share of buckets); `[layer, neuron]`: `by_type_spread` (variance of totals).
    """
    used = state["rows_by_type"] > 0
    n = int(used.sum())
    gain, total = state["gain_by_type"][:, used].double(), state["total_by_type"][used].double()
    scale = (total.sum(dim=0) / max(n, 1)).clamp(min=1e-30)
    gain, total = gain / scale, total / scale
    share, size = gain.sum(dim=1) / max(n, 1), total.sum(dim=0) / max(n, 1)
    apart, of_size = gain - share[:, None], total - size
    found = {
        "by_type_mean": share,
        "by_type_variance": apart.square().sum(dim=1) / max(n - 1, 1),
        "by_type_covariance": (apart * of_size).sum(dim=1) / max(n - 1, 1),
        "by_type_positive": (gain > 0).sum(dim=1) / max(n, 1),
        "by_type_spread": of_size.square().sum(dim=0) / max(n - 1, 1),
    }
    return {name: values.float().numpy() for name, values in found.items()}, n


def estimate(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], family: str, floor: float) -> Estimate:
    """The share of variance that a family explains, with buckets as units and the standard error of `G - floor T`."""
    place, n = FAMILIES.index(family), int(about["types"])
    mean, variance, covariance, positive = (
        arrays[f"by_type_{name}"][place].astype(np.float64) for name in ("mean", "variance", "covariance", "positive")
    )
    spread = variance - 2 * floor * covariance + floor**2 * arrays["by_type_spread"].astype(np.float64)
    se = np.sqrt(np.maximum(spread, 0.0) / max(n, 1))
    return Estimate(mean=mean, se=se, n=n, df=max(n - 1, 1), positive=positive)
