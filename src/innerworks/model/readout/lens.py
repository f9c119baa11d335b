"""The logit lens: which token would the model name, if it stopped at this layer?

1. Take the stream at a layer: `L*.resid_post` (or `resid_pre`, `resid_mid`), translated if asked for (a tuned lens).
2. Send it through the model's own final norm, with the scale that this stream has.
3. Send that through the unembedding; a soft cap is applied unless `capped=False`.

After the last layer this is exactly what the model says. nostalgebraist 2020 (interpreting GPT: the logit lens). What it does not
do: correct for a basis that drifts from layer to layer; in early layers of many models a low rank says nothing (that is what
tuned lenses are for: `innerworks.residual`), and the first position of most models is an outlier.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerworks.errors import UnknownSite, UsageError
from innerworks.model.anatomy import find
from innerworks.model.model import Model, wanted_logits
from innerworks.model.run import Run
from innerworks.sites import Site

if TYPE_CHECKING:
    import polars

Text = Run | Int[Tensor, "batch seq"] | str | Sequence[str]
Where = Literal["all", "last"] | Sequence[int] | Bool[Tensor, "batch seq"]
Translate = Callable[[int, Float[Tensor, "*where d_model"]], Float[Tensor, "*where d_model"]]  # of a layer and its stream
STREAMS = ("resid_pre", "resid_mid", "resid_post")
LOGITS_AT_ONCE = 1 << 25  # 128 MiB in float32


@dataclass(frozen=True, kw_only=True)
class Top:
    """The tokens that the logit lens ranks first, layer by layer."""

    sites: tuple[str, ...]  # the streams that were read, in order
    axes: tuple[str, ...]  # what lies between `layer` and `rank`: batch and seq, batch, or chosen
    tokens: Int[Tensor, "layer *where rank"]  # token ids, likeliest first
    logits: Float[Tensor, "layer *where rank"]  # their logits
    probability: Float[Tensor, "layer *where rank"]  # their probabilities, in [0, 1]
    entropy: Float[Tensor, "layer *where"]  # of all probabilities at the place, in nats

    def frame(self) -> "polars.DataFrame":
        """One row per stream, token of the text and rank: `site batch seq rank token value unit probability entropy`."""
        import polars as pl

        shape = self.tokens.shape
        index = {axis: one.flatten().numpy() for axis, one in zip(("layer", *self.axes, "rank"), _indices(shape), strict=True)}
        sites = pl.Series("site", self.sites)[index.pop("layer")]
        return pl.DataFrame({"site": sites, **index}).with_columns(
            token=pl.Series(self.tokens.flatten().numpy(force=True)),
            value=pl.Series(self.logits.flatten().numpy(force=True)),
            unit=pl.lit("logits"),
            probability=pl.Series(self.probability.flatten().numpy(force=True)),
            entropy=pl.Series(self.entropy[..., None].expand(shape).flatten().numpy(force=True)),
        )


def logit_lens(
    model: Model,
    text: Text,
    *,
    kind: str = "resid_post",
    layers: Sequence[int] | None = None,
    positions: Where = "all",
    mask: Bool[Tensor, "batch seq"] | None = None,
    capped: bool = True,
    translate: Translate | None = None,
) -> Float[Tensor, "layer *where vocab"]:
    """Which token would the model name, if it stopped at this layer?

    `unembed(final_norm(stream))`. text: a run that recorded the streams, or token ids (with their mask), or text.
    positions: as `logits=` of `model.run`: `all` gives `[layer, batch, seq, vocab]`, `last` `[layer, batch, vocab]`, positions
    (counted from each text's first token) or a boolean `[batch, seq]` give `[layer, chosen, vocab]`.
    translate: maps a layer's stream to the one that is read in its place, such as a tuned lens.

    Returns: logits. All of them are held: `layers * tokens * vocab` numbers; `top` needs only a bounded block at once.
    """
    _, _, streams = _streams(model, text, kind, layers, positions, mask, translate)
    return torch.stack([torch.cat(list(_read(model, one, capped))).unflatten(0, one.shape[:-1]) for one in streams])


def top(
    model: Model,
    text: Text,
    *,
    k: int = 10,
    kind: str = "resid_post",
    layers: Sequence[int] | None = None,
    positions: Where = "all",
    mask: Bool[Tensor, "batch seq"] | None = None,
    translate: Translate | None = None,
) -> Top:
    """Which k tokens does the lens rank first, how likely are they, and how sure is it? As `logit_lens`, in bounded memory."""
    if not 1 <= k <= model.anatomy.vocab:
        raise UsageError(f"k={k}: from 1 to the {model.anatomy.vocab} tokens of the vocabulary.")
    sites, axes, streams = _streams(model, text, kind, layers, positions, mask, translate)
    found = [[_best(logits, k) for logits in _read(model, one, capped=True)] for one in streams]
    where = (len(sites), *streams[0].shape[:-1])
    tokens, logits, probability, entropy = (
        torch.stack([torch.cat([block[part] for block in blocks]) for blocks in found]) for part in range(4)
    )
    return Top(
        sites=sites,
        axes=axes,
        tokens=tokens.view(*where, k),
        logits=logits.view(*where, k),
        probability=probability.view(*where, k),
        entropy=entropy.view(where),
    )


def after_final_norm(model: Model, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... width"]:
    """What the unembedding reads: the stream through the final norm, and through a projection where the family has one."""
    for path in (model.adapter.final_norm, model.adapter.final_then):
        module = find(model.hf, path)
        stream = stream if module is None else module(stream)
    return stream


def _best(logits: Float[Tensor, "row vocab"], k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The k largest: their tokens, logits and probabilities; and the entropy of all."""
    best, probability = logits.topk(k, dim=-1), logits.softmax(dim=-1)
    return best.indices, best.values, probability.gather(-1, best.indices), torch.special.entr(probability).sum(dim=-1)


def _read(model: Model, stream: Float[Tensor, "*where d_model"], capped: bool) -> Iterator[Float[Tensor, "row vocab"]]:
    """Logits of some rows at a time."""
    rows = stream.flatten(end_dim=-2).to(model.device)
    for block in rows.split(max(1, LOGITS_AT_ONCE // model.anatomy.vocab)):
        with torch.no_grad():
            yield model.readout(after_final_norm(model, block), capped=capped).float()


def _streams(
    model: Model,
    text: Text,
    kind: str,
    layers: Sequence[int] | None,
    positions: Where,
    mask: Bool[Tensor, "batch seq"] | None,
    translate: Translate | None,
) -> tuple[tuple[str, ...], tuple[str, ...], list[Float[Tensor, "*where d_model"]]]:
    """The sites, the axes of the streams read there, and the streams."""
    every = streams_of(model, kind)
    sites = every if layers is None else [f"L{layer}.{kind}" for layer in layers]
    run = text if isinstance(text, Run) else model.run(text, mask=mask, record=sites, logits="none")
    found = [run[site] if translate is None else translate(Site.parse(site).layer or 0, run[site]) for site in sites]
    rows = wanted_logits(positions, run.mask)
    if isinstance(rows, Tensor):
        return tuple(sites), ("chosen",), [one[rows[:, run.start :].to(one.device)] for one in found]
    if rows == "all":
        return tuple(sites), ("batch", "seq"), found
    if rows == "last":
        last = last_token(run.mask) - run.start
        return tuple(sites), ("batch",), [one[torch.arange(len(one)), last.to(one.device)] for one in found]
    raise UsageError(f"positions={positions!r}: 'all', 'last', positions, or a boolean [batch, seq].")


def streams_of(model: Model, kind: str) -> list[str]:
    """The streams of a kind, one per layer. Raises UsageError for what is no stream, or where the model has none of the kind."""
    if kind not in STREAMS:
        raise UsageError(f"kind={kind!r}: the lens reads streams ({', '.join(STREAMS)}). For what one part adds, use attribute.")
    if not model.sites(kind):
        raise UnknownSite(f"There is no {kind} in {model.name}: {model.lacks(kind, 0)}.")
    return model.sites(kind)


def last_token(mask: Bool[Tensor, "batch seq"]) -> Int[Tensor, " batch"]:
    """Where each text's last real token stands."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=-1)


def _indices(shape: torch.Size) -> tuple[Tensor, ...]:
    return torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij")
