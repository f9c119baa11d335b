"""Edits are values: frozen descriptions of what to change where, handed to `model.run(..., edit=[...])`.

`ablate` takes a part out (its mean or zero in its place), by default at every position but the first, which is the attention
sink of most models and like no other. `patch` puts a given value there, by default at every position.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from innerworks.errors import UnknownSite, UsageError
from innerworks.model.call import EVERY, Handler
from innerworks.sites import KINDS, Site

Positions = Sequence[int] | Tensor | None
RECORDED_ONLY = {
    "resid_mid": "edit attn_out or resid_pre of the same layer instead",
    "logits": "edit the returned logits",
}


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Mean activations to put in the place of an ablated part, and what they are a mean over.

    values: kind -> `[layer, ...]`, for instance `z`: `[layer, head, d_head]`. over: in words, for the record.
    """

    values: dict[str, Tensor]
    over: str

    def of(self, site: Site) -> Tensor:
        """Return the mean activation at a site."""
        if site.activation not in self.values:
            raise UsageError(f"There is no mean for {site}: means over {self.over} hold {', '.join(self.values)}.")
        value = self.values[site.activation]
        for index in (site.layer, site.head if site.head is not None else site.neuron):
            if index is not None and index >= len(value):
                raise UnknownSite(f"There is no {site} in the mean over {self.over}.")
            value = value if index is None else value[index]
        return value


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Put `value` at `site` for the chosen positions. Made by `ablate` and `patch`."""

    site: Site
    value: Tensor | float = field(repr=False)
    positions: "Positions | Literal['all']" = field(default=None, repr=False)
    says: str = ""

    def handler(self, position_ids: Int[Tensor, "batch seq"]) -> Handler:
        """Make the function that changes the activation as it passes."""
        rows = chosen(self.positions, position_ids)

        def put(activation: Tensor, queries: slice) -> Tensor:
            edited = activation.clone()
            part, axes = edited, list(KINDS[self.site.activation][0])
            for axis, index in (("head", self.site.head), ("neuron", self.site.neuron)):
                if index is not None:
                    part = part.select(axes.index(axis), index)
                    axes.remove(axis)
            where = rows.to(part.device)[:, queries]
            if axes[1] == "head":
                where = where[:, None].expand(part.shape[:-1])
            seq = axes.index("seq")
            value = torch.as_tensor(self.value, dtype=part.dtype, device=part.device)
            whole = _spread(value, (*part.shape[:seq], rows.shape[1], *part.shape[seq + 1 :]), self.site)
            part[where] = whole[(EVERY,) * seq + (queries,)][where]
            return edited

        return put


def ablate(
    site: str | Site, how: Literal["mean", "zero"] = "mean", *, mean: Mean | None = None, positions: Positions = None
) -> Edit:
    """Take a part out: a head (`L9H1`), a neuron (`L5N812`), a sub-layer (`L5.attn_out`).

    how: `mean` puts the part's mean activation there, which keeps the stream in its usual place and needs `mean`;
    `zero` is harsher. positions: indices from each sequence's first token, or a boolean `[batch, seq]`; None is
    every position but 0.
    """
    site = editable(site)
    if how == "zero":
        return Edit(site=site, value=0.0, positions=positions, says=f"{site} set to zero")
    if how != "mean":
        raise UsageError(f"ablate(how={how!r}): how is 'mean' or 'zero'.")
    if mean is None:
        raise UsageError(f"ablate({str(site)!r}) needs the mean to put there: mean=model.mean(texts), or how='zero'.")
    return Edit(site=site, value=mean.of(site), positions=positions, says=f"{site} set to its mean over {mean.over}")


def patch(site: str | Site, value: Tensor, *, positions: Positions | Literal["all"] = "all") -> Edit:
    """Put a recorded (or any) activation at a site: `[batch, seq, ...]` as recorded, or one value for all positions.

    positions: as in `ablate`; by default every position, the first included.
    """
    site = editable(site)
    return Edit(site=site, value=value, positions=positions, says=f"{site} patched")


def editable(site: str | Site) -> Site:
    """Parse a site and refuse those that can only be recorded."""
    site = Site.parse(site)
    if site.activation in RECORDED_ONLY:
        raise UnknownSite(f"{site} can be recorded but not edited: {RECORDED_ONLY[site.activation]}.")
    return site


def chosen(positions: "Positions | Literal['all']", position_ids: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """Turn positions into a boolean per token; None is every position but 0."""
    if isinstance(positions, str):
        return torch.ones_like(position_ids, dtype=torch.bool)
    if positions is None:
        return position_ids >= 1
    if isinstance(positions, Tensor) and positions.dtype == torch.bool:
        if positions.shape != position_ids.shape:
            raise UsageError(f"positions has shape {tuple(positions.shape)}, the tokens {tuple(position_ids.shape)}.")
        return positions
    wanted, length = torch.as_tensor(positions, device=position_ids.device), int(position_ids.max()) + 1
    outside = wanted[(wanted < 0) | (wanted >= length)].tolist()
    if outside:
        raise UsageError(
            f"positions {outside} lie outside the sequences, of which the longest has {length} tokens (0 to {length - 1})."
        )
    return torch.isin(position_ids, wanted)


def _spread(value: Tensor, shape: tuple[int, ...], site: Site) -> Tensor:
    try:
        return value.expand(shape)
    except RuntimeError as error:
        raise UsageError(
            f"A value of shape {tuple(value.shape)} cannot be put at {site}, which has {shape} in this run."
        ) from error
