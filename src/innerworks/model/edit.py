"""Edits are values: frozen descriptions of what to change where, handed to `model.run(..., edit=[...])`.

`ablate` takes a part out (its mean, zero, or another text's value in its place); `steer` adds a vector; `scale` multiplies;
`patch` puts a given value; `knockout` forbids a head to look somewhere; `freeze` holds an activation at what it was.
What takes out, adds or multiplies leaves each text's first position alone by default: it is the attention sink of most
models and like no other. What puts a given value does so at every position by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.errors import UnknownSite, UsageError
from innerworks.model.call import EVERY, OVER_KEYS, Handler, Positions
from innerworks.sites import KINDS, PARTS, Axes, Site

if TYPE_CHECKING:
    from innerworks.model.run import Run

Where = Sequence[int] | Tensor | Literal["all"] | None
RECORDED_ONLY = {
    "resid_mid": "edit attn_out or resid_pre of the same layer instead",
    "logits": "edit the returned logits",
}


@runtime_checkable
class Edit(Protocol):
    """What `model.run(edit=...)` takes: where it applies, what it does in words, and the function that does it."""

    @property
    def site(self) -> Site: ...  # noqa: D102
    @property
    def says(self) -> str: ...  # noqa: D102

    def handler(self, positions: Positions) -> Handler:
        """Make the function that changes the activation as it passes."""
        ...


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
        for index in (site.layer, *(getattr(site, part) for part in PARTS)):
            if index is not None and index >= len(value):
                raise UnknownSite(f"There is no {site} in the mean over {self.over}.")
            value = value if index is None else value[index]
        return value


@dataclass(frozen=True, kw_only=True)
class Change:
    """Put, add or multiply by `value` at `site`, for the chosen positions."""

    site: Site
    value: Tensor | float = field(repr=False)
    how: Literal["put", "add", "times"] = "put"
    positions: Where = field(default=None, repr=False)
    says: str = ""

    def handler(self, positions: Positions) -> Handler:
        """Make the function that changes the activation as it passes."""

        def change(activation: Tensor, queries: slice) -> Tensor:
            rows = rows_of(self.positions, positions)
            edited = activation.clone()
            part, axes = narrowed(edited, self.site)
            total, length = rows.shape[1], part.shape[axes.index("seq")]
            start = total - length if self.site.activation in OVER_KEYS else positions.offset + (queries.start or 0)
            here = slice(start, start + length)
            where = rows.to(part.device)[:, here]
            where = where[:, None].expand(part.shape[:-1]) if axes[1] == "head" else where
            part[where] = self._apply(part[where], self._spread(part, axes, total, here)[where])
            return edited

        return change

    def _apply(self, old: Tensor, value: Tensor) -> Tensor:
        return {"put": lambda: value, "add": lambda: old + value, "times": lambda: old * value}[self.how]()

    def _spread(self, part: Tensor, axes: Axes, total: int, here: slice) -> Tensor:
        """The value over the whole text, cut to what passes here."""
        value = torch.as_tensor(self.value, dtype=part.dtype, device=part.device)
        seq = axes.index("seq")
        shape = (*part.shape[:seq], total, *part.shape[seq + 1 :])
        try:
            return value.expand(shape)[(EVERY,) * seq + (here,)]
        except RuntimeError as error:
            raise UsageError(
                f"A value of shape {tuple(value.shape)} cannot be put at {self.site}, which has {shape} in this run."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Knockout:
    """Forbid a head's queries to look at keys: minus infinity (the lowest number) before the softmax."""

    site: Site
    queries: Where = field(repr=False)
    keys: Where = field(repr=False)
    says: str = ""

    def handler(self, positions: Positions) -> Handler:
        """Make the function that lowers the scores as they pass."""

        def forbid(scores: Tensor, queries: slice) -> Tensor:
            rows = rows_of(self.queries, positions)[:, positions.offset :][:, queries].to(scores.device)
            columns = rows_of(self.keys, positions)[:, -scores.shape[-1] :].to(scores.device)
            edited = scores.clone()
            part, _ = narrowed(edited, self.site)
            barred = rows[:, :, None] & columns[:, None, :]
            barred = barred[:, None].expand_as(part) if part.ndim == 4 else barred
            lowest = torch.finfo(part.dtype).min
            seen = (part > lowest).any(dim=-1)
            part[barred] = lowest
            if bool((seen & ~(part > lowest).any(dim=-1)).any()):
                raise UsageError(f"{self.says}: some query would have no key left to look at. Leave it one, or ablate the head.")
            return edited

        return forbid


@dataclass(frozen=True, kw_only=True)
class Detach:
    """Let values pass and stop gradients."""

    site: Site
    says: str = ""

    def handler(self, positions: Positions) -> Handler:
        """Make the function that cuts the graph."""
        return lambda activation, queries: activation.detach()


def ablate(
    site: str | Site,
    how: Literal["mean", "zero", "resample"] = "mean",
    *,
    mean: Mean | None = None,
    source: "Run | None" = None,
    positions: Where = None,
) -> Change:
    """Take a part out: a head (`L9H1`), a neuron (`L5N812`), a dimension of the stream (`L5D507`), a sub-layer (`L5.attn_out`).

    how: `mean` puts the part's mean activation there, which keeps the stream in its usual place and needs `mean`; `zero` is
    harsher; `resample` puts what the part did on the next text of `source`, a run that recorded it on texts of the same shape
    (the last takes the first's). positions: indices from each text's first token, a boolean `[batch, seq]`, or `all`;
    None is every position but 0.
    """
    site = editable(site)
    if how == "zero":
        return Change(site=site, value=0.0, positions=positions, says=f"{site} set to zero")
    if how == "mean":
        if mean is None:
            raise UsageError(f"ablate({str(site)!r}) needs the mean to put there: mean=model.mean(texts), or how='zero'.")
        return Change(site=site, value=mean.of(site), positions=positions, says=f"{site} set to its mean over {mean.over}")
    if how != "resample":
        raise UsageError(f"ablate(how={how!r}): how is 'mean', 'zero' or 'resample'.")
    if source is None:
        raise UsageError(f"ablate({str(site)!r}, 'resample') needs source=, a run that recorded {site} on other texts.")
    if len(source.mask) < 2 or source.start or bool((source.mask != source.mask[:1]).any()):
        raise UsageError(
            f"ablate({str(site)!r}, 'resample'): source= must be a whole run of two texts or more, all equally long."
        )
    return Change(site=site, value=source[site].roll(-1, dims=0), positions=positions, says=f"{site} taken from another text")


def patch(site: str | Site, value: Tensor, *, positions: Where = "all") -> Change:
    """Put a recorded (or any) activation at a site: `[batch, seq, ...]` as recorded, or one value for all positions.

    positions: as in `ablate`; by default every position, the first included.
    """
    site = editable(site)
    return Change(site=site, value=value, positions=positions, says=f"{site} patched")


def steer(site: str | Site, vector: Float[Tensor, " width"], strength: float = 1.0, *, positions: Where = None) -> Change:
    """Add `strength * vector` to an activation. positions: as in `ablate`; None is every position but 0."""
    site = editable(site)
    return Change(site=site, value=vector * strength, how="add", positions=positions, says=f"{site} steered by {strength:g}")


def scale(site: str | Site, factor: float, *, positions: Where = None) -> Change:
    """Multiply an activation. positions: as in `ablate`; None is every position but 0."""
    site = editable(site)
    return Change(site=site, value=factor, how="times", positions=positions, says=f"{site} times {factor:g}")


def knockout(site: str | Site, query: int | Where, key: int | Where) -> Knockout:
    """Forbid a head (`L5H3`, or `L5` for every head of the layer) to look from `query` positions at `key` positions.

    Positions as in `ablate`, so None is every position but 0: `knockout("L5H3", None, 0)` forbids the look at the first token.
    The probability goes to the keys that are left. A query that would be left with none is an error.
    """
    site = Site.parse(site)
    if (
        site.layer is None
        or site.kind not in (None, "scores", "pattern")
        or any(getattr(site, part) is not None for part in PARTS if part != "head")
    ):
        raise UsageError(f"knockout({str(site)!r}): give a head such as L5H3, or a layer such as L5.")
    place = Site(layer=site.layer, head=site.head, kind="scores")
    says = f"{site} kept from looking from {_words(query)} to {_words(key)}"
    return Knockout(site=place, queries=_several(query), keys=_several(key), says=says)


def _several(where: int | Where) -> Where:
    return [where] if isinstance(where, int) else where


def _words(where: int | Where) -> str:
    return "every position but 0" if where is None else "chosen positions" if isinstance(where, Tensor) else f"{where}"


def freeze(site: str | Site, clean: "Run | None" = None) -> Change | Detach:
    """Hold an activation still: at its values in `clean`, a run on the same tokens that recorded it.

    Without a run the values pass and gradients stop there: `freeze("norm_scale")` makes the final norm linear in backward.
    """
    site = editable(site)
    if clean is None:
        return Detach(site=site, says=f"{site} without gradient")
    if clean.start:
        raise UsageError(f"freeze({str(site)!r}): the clean run computed only a suffix. Run it whole.")
    return Change(site=site, value=clean[site], positions="all", says=f"{site} frozen")


def editable(site: str | Site) -> Site:
    """Parse a site and refuse those that can only be recorded."""
    site = Site.parse(site)
    if site.activation in RECORDED_ONLY:
        raise UnknownSite(f"{site} can be recorded but not edited: {RECORDED_ONLY[site.activation]}.")
    return site


def narrowed(activation: Tensor, site: Site) -> tuple[Tensor, Axes]:
    """A view of the part of an activation that a site stands for, and its axes."""
    axes = list(KINDS[site.activation][0])
    for part, axis in PARTS.items():
        index = getattr(site, part)
        if index is not None and axis in axes:
            activation = activation.select(axes.index(axis), index)
            axes.remove(axis)
    return activation, tuple(axes)


def applies(edit: Edit, positions: Positions) -> bool:
    """Does an edit concern any token that is computed now (or, of keys and values, any token so far)?"""
    if isinstance(edit, Knockout):
        rows = rows_of(edit.queries, positions)[:, positions.offset :]
        return bool((rows.any(dim=1) & rows_of(edit.keys, positions).any(dim=1)).any())
    if isinstance(edit, Change):
        behind = 0 if edit.site.activation in OVER_KEYS else positions.offset
        return bool(rows_of(edit.positions, positions)[:, behind:].any())
    return True


def rows_of(where: Where, positions: Positions) -> Bool[Tensor, "batch total"]:
    """Turn positions into a boolean per token of the whole text, False at padding; None is every position but 0."""
    chosen = _chosen(where, positions)
    return chosen if positions.real is None else chosen & positions.real.to(chosen.device)


def _chosen(where: Where, positions: Positions) -> Bool[Tensor, "batch total"]:
    ids = positions.ids
    if isinstance(where, str):
        if where != "all":
            raise UsageError(f"positions={where!r}: as a word there is only 'all'. Give indices, or a boolean per token.")
        return torch.ones_like(ids, dtype=torch.bool)
    if where is None:
        return ids >= 1
    wanted, length = torch.as_tensor(where, device=ids.device), int(ids.max()) + 1
    if wanted.dtype == torch.bool:
        if wanted.shape != ids.shape:
            raise UsageError(f"positions has shape {tuple(wanted.shape)}, the tokens {tuple(ids.shape)}.")
        return wanted
    outside = wanted[(wanted < 0) | ((wanted >= length) & (not positions.growing))].tolist()
    if outside:
        raise UsageError(
            f"positions {outside} lie outside the sequences, of which the longest has {length} tokens (0 to {length - 1})."
        )
    return torch.isin(ids, wanted)
