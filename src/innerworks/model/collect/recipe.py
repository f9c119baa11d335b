"""What is asked for: options as the caller gave them become a recipe, which together with model and corpus decides every byte.

1. `Options` refuses what no model could do; None stands for what follows from the model.
2. The sites are spelled out, and those refused that have no row per token, such as attention patterns and logits.
3. The shape of each site's row comes from a run on two tokens, and from the shapes how large a shard and a forward may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from innerworks.errors import UnknownSite, UsageError, near_misses
from innerworks.model.load import DTYPES
from innerworks.model.model import Model
from innerworks.sites import KINDS, Site, expand
from innerworks.text import Corpus, Document
from innerworks.text.reading import opening_tokens

WINDOW = 512  # tokens
SHARD_TOKENS = 16_384  # rows of a shard
SHARD_BYTES = 256 * 2**20  # ... or fewer, so that its activations are no more than this
BATCH_TOKENS = 4_096  # per forward, padding included
POSITIONS = ("all", "last")
TRACE = ("tokens", "document", "position")  # int32, beside the sites in every shard


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the caller said, checked; None is for what follows from the model."""

    dtype: str
    window: int | None
    positions: str
    skip_first: bool
    shard_tokens: int | None
    batch_tokens: int | None

    def __post_init__(self) -> None:
        for name, value, known in (("dtype", self.dtype, tuple(DTYPES)), ("positions", self.positions, POSITIONS)):
            if value not in known:
                raise UsageError(f"{name}={value!r}: one of {', '.join(known)}.{near_misses(value, known)}")
        for name in ("window", "shard_tokens", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value}: at least 1.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what the shards hold, but for the model and the corpus."""

    shapes: Mapping[str, tuple[int, ...]]  # site -> shape of a row
    axes: Mapping[str, tuple[str, ...]]
    dtype: str
    window: int
    opening: tuple[int, ...]
    positions: str
    skip_first: bool
    shard_tokens: int
    batch_tokens: int

    @property
    def row_bytes(self) -> int:
        """What a row takes on disk."""
        return 4 * len(TRACE) + sum(prod(shape) for shape in self.shapes.values()) * DTYPES[self.dtype].itemsize


def corpus_of(corpus: str | Corpus | Sequence[str]) -> Corpus:
    """The corpus that was meant: a Corpus, the name of one, or texts, each of which is named by its number."""
    if isinstance(corpus, str | Corpus):
        return Corpus.open(corpus)
    odd = [one for one in corpus if not isinstance(one, str)]
    if odd or not corpus:
        raise UsageError(f"A corpus as a list is a list of texts; got {'an empty one' if not corpus else repr(odd[0])}.")
    return Corpus(name="texts", documents=tuple(Document(id=str(i), text=text) for i, text in enumerate(corpus)))


def recipe_of(model: Model, sites: str | Site | Sequence[str | Site], options: Options) -> Recipe:
    """The recipe for a model; raises UsageError or UnknownSite for what it cannot do."""
    wanted = _sites(model, sites)
    if not model.tokenizer.is_fast:
        raise UsageError(f"{type(model.tokenizer).__name__} is no fast tokenizer: use the one of this model with tokenizer.json.")
    opening = opening_tokens(model.tokenizer)
    window = _window(model, options.window, opening)
    shapes = _shapes(model, wanted)
    affordable = max(1, SHARD_BYTES // (sum(map(prod, shapes.values())) * DTYPES[options.dtype].itemsize))
    return Recipe(
        shapes=shapes,
        axes={str(site): _axes(site) for site in wanted},
        dtype=options.dtype,
        window=window,
        opening=opening,
        positions=options.positions,
        skip_first=options.skip_first,
        shard_tokens=options.shard_tokens or min(SHARD_TOKENS, affordable),
        batch_tokens=options.batch_tokens or min(BATCH_TOKENS, affordable),
    )


def _window(model: Model, window: int | None, opening: tuple[int, ...]) -> int:
    limit = model.anatomy.max_positions
    if window is None:
        return min(WINDOW, limit or WINDOW)
    if limit is not None and window > limit:
        raise UsageError(f"window={window}, but {model.name} has {limit} positions: at most {limit}.")
    if window <= len(opening):
        raise UsageError(
            f"window={window}: at least {len(opening) + 1}, since {model.name} opens every text with {len(opening)}."
        )
    return window


def _sites(model: Model, sites: str | Site | Sequence[str | Site]) -> list[Site]:
    patterns = [sites] if isinstance(sites, str | Site) else list(sites)
    wanted = list(dict.fromkeys(expand(patterns, layers=model.anatomy.layers, heads=model.anatomy.heads)))
    if not wanted:
        raise UsageError("Say which sites to collect, for instance ['L12.resid_post'].")
    for site in wanted:
        if site.kind in ("model", "logits"):
            raise UnknownSite(f"{site} is not collected: sites of layers are (L5.resid_post, L5.mlp_out, L5.z), and embed.")
        axes = KINDS[site.activation][0]
        if "key" in axes or axes[:2] != ("batch", "seq"):
            raise UnknownSite(
                f"{site} is [{', '.join(axes)}]: it has no row per token, so it cannot be collected. "
                f"Look at it text by text: model.run(text, record=['{site}'])['{site}']."
            )
        model.check(site)
    return wanted


def _axes(site: Site) -> tuple[str, ...]:
    chosen = {axis for axis in ("head", "expert", "neuron") if getattr(site, axis) is not None}
    return tuple(axis for axis in KINDS[site.activation][0][2:] if axis not in chosen)


def _shapes(model: Model, sites: list[Site]) -> dict[str, tuple[int, ...]]:
    """The shape of a row of each site, from a run on two tokens: a site that this model cannot record is found out now."""
    run = model.run(torch.zeros(1, 2, dtype=torch.long), record=sites, logits="none")
    return {str(site): tuple(run[site].shape[2:]) for site in sites}
