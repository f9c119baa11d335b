"""Train a tuned lens: what affine map of each layer's stream brings the model's last step closest to what it says in the end?

1. Documents are dealt to training (half), validation and test (a quarter each), within each domain.
2. Of each training document some positions are drawn; one forward gives the streams of all layers there. The loss of a layer is
   the divergence `KL(final || lens)`; only its own map learns from it.
3. Maps begin at the identity and take their first step in closed form: every position of some documents is read, and ridge
   regression says what the stream lacks of the last one. It costs next to nothing and goes most of the way; Adam alone, from the
   identity, has hardly begun after 64 steps (docs/log.md, 2026-11-25).
4. Then Adam, at a rate that rises for a tenth of the steps and falls to zero, in coordinates in which each dimension has mean 0
   and spread 1 (else the few huge ones would rule). Every so often the divergence is measured on the validation documents. Each
   layer keeps its best map; when for a while no layer has improved, training stops.
5. On validation, too, it is decided whether a map is better than the identity for sure (the 95 % interval over documents of what
   it gains lies above zero); else the layer keeps the identity. The test documents only report.

Memory does not grow with the corpus: a window, the maps, and a fixed number of validation positions. The last layer's own stream
needs no map. Belrose et al. 2023, arXiv:2303.08112, whose code takes 250 steps of 2^18 tokens. A few thousand positions take
minutes on a CPU; the held-out divergence says how far they lead.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

import innerworks
from innerworks.errors import TextError, UsageError
from innerworks.model.digest import weights_digest
from innerworks.model.model import Model
from innerworks.model.readout.lens import streams_of
from innerworks.model.tally import Tally
from innerworks.residual.divergence import Seen, divergence, divergences, ending, look, together
from innerworks.residual.tuned_lens import HeldOut, TunedLens
from innerworks.stats import Array, deal_halves, estimate
from innerworks.text import Corpus
from innerworks.text.reading import Window, read

POSITIONS = 1024  # trained on in all
AT_ONCE = 32  # of them, from one window, make a step
RATES = (2e-4, 1e-2)  # of change and shift, per step, in sizes of the stream
WARMING = 0.1  # of the steps
FITTED = 64  # windows of which every position is read for the maps to begin with
RIDGE = 0.03  # of the variance of a dimension
MEASURED = 64  # documents to validate on, and to test on, at most
ROWS = 4  # positions of each validation document; twice as many of each test document
EVERY = 16  # steps from one validation to the next
PATIENCE = 3  # validations without any better layer


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The windows of each part, and the domain of each document."""

    training: list[Window]
    validation: list[Window]
    test: list[Window]
    strata: dict[int, str]


def tune(
    model: Model,
    corpus: str | Corpus,
    *,
    kind: str = "resid_post",
    positions: int = POSITIONS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TunedLens:
    """Train a tuned lens for a model on a corpus. See the top of this file for the method.

    kind: the stream that is translated: resid_post, resid_pre or resid_mid. positions: trained on in all, at most. progress:
    windows run so far, and in all.

    Returns: the lens, with the held-out divergence of both lenses at each layer, in nats.
    """
    if positions < AT_ONCE:
        raise UsageError(f"positions={positions}: at least {AT_ONCE}, which make one step.")
    streams_of(model, kind)
    corpus = Corpus.open(corpus)
    generator = torch.Generator().manual_seed(seed)
    parts = parts_of(model, corpus, generator, seed=seed)
    steps = positions // AT_ONCE
    step = Tally(says=progress, total=min(FITTED, len(parts.training)) + len(parts.validation) + steps + len(parts.test))
    validation = _looked(model, parts.validation, kind, ROWS, generator, step)
    learning = Learning(model, kind, fit_of(model, parts.training, kind, step))
    best = learn(learning, parts, validation, steps, generator, step)
    change, shift, tuned = _decided(learning, best, validation, parts)
    test = _looked(model, parts.test, kind, 2 * ROWS, generator, step)
    step(step.total - step.done)
    lens = TunedLens(
        model=model.name,
        weights=weights_digest(model.hf),
        kind=kind,
        change=change,
        shift=shift,
        held_out=(),
        trained_on=_trained_on(corpus, parts, learning, steps, seed),
    )
    return replace(lens, held_out=_held_out(model, lens, tuned, test, parts))


# --- the text ----------------------------------------------------------------------------------------------------


def parts_of(model: Model, corpus: Corpus, generator: torch.Generator, *, seed: int) -> Parts:
    """Deal documents to training, validation and test; of the latter two, the first window of each document."""
    anatomy = model.anatomy
    reading = read(corpus, model.tokenizer, vocab=anatomy.vocab, max_positions=anatomy.max_positions, sequences=0, seed=seed)
    strata = {i: unit.stratum for i, unit in enumerate(reading.units)}
    usable = [window for window in reading.windows if len(window.tokens) > 1]
    training = [window for window in usable if reading.units[window.unit].half == "discovery"]
    first = {window.unit: window for window in reversed(usable) if reading.units[window.unit].half == "confirmation"}
    windows = [first[unit] for unit in sorted(first)]
    halves = deal_halves([str(window.tokens) for window in windows], [strata[window.unit] for window in windows])
    kept = {
        half: _some([window for window, mine in zip(windows, halves, strict=True) if mine == half], generator)
        for half in ("discovery", "confirmation")
    }
    if min(map(len, kept.values())) < 2 or not training:
        raise TextError(f"{corpus.name} leaves {len(windows)} documents to validate and test on: a lens needs more text.")
    return Parts(training=training, validation=kept["discovery"], test=kept["confirmation"], strata=strata)


def _some(windows: list[Window], generator: torch.Generator) -> list[Window]:
    order = torch.randperm(len(windows), generator=generator)[:MEASURED]
    return [windows[i] for i in sorted(order.tolist())]


def _endless(windows: Sequence[Window], generator: torch.Generator) -> Iterator[Window]:
    """Windows in random order, over and over."""
    while True:
        yield from (windows[i] for i in torch.randperm(len(windows), generator=generator).tolist())


def _looked(model: Model, windows: Sequence[Window], kind: str, rows: int, generator: torch.Generator, step: Tally) -> Seen:
    seen = []
    for window in windows:
        seen.append(look(model, window, kind, rows=rows, generator=generator))
        step()
    return together(seen)


# --- learning ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Mean and spread of each dimension of each layer's stream, its size, and where the maps begin."""

    mean: Float[Tensor, "layer d_model"]
    spread: Float[Tensor, "layer d_model"]
    size: Float[Tensor, " layer"]  # root mean square over dimensions and tokens
    change: Float[Tensor, "layer d_model d_model"]  # of the standardised stream, in units of size
    shift: Float[Tensor, "layer d_model"]


@dataclass(kw_only=True)
class Moments:
    """Sums over tokens of a layer's stream and of what is missing from it: all that least squares needs, whatever the corpus."""

    count: int = 0
    stream: Float[Tensor, "layer d_model"] | float = 0.0
    last: Float[Tensor, " d_model"] | float = 0.0
    squares: Float[Tensor, "layer d_model d_model"] | float = 0.0
    products: Float[Tensor, "layer d_model d_model"] | float = 0.0

    def add(self, streams: Float[Tensor, "layer row d_model"], last: Float[Tensor, "row d_model"]) -> None:
        """Count the rows of a window. last: the model's last stream at root mean square one."""
        self.count += len(last)
        self.stream, self.last = self.stream + streams.sum(dim=1), self.last + last.sum(dim=0)
        self.squares = self.squares + streams.mT @ streams
        self.products = self.products + streams.mT @ last


def fit_of(model: Model, windows: Sequence[Window], kind: str, step: Tally) -> Fit:
    """Read every position but the first of some windows, spread over all of them, and solve for the maps to begin with."""
    moments, end = Moments(), f"L{model.anatomy.layers - 1}.resid_post"
    for i in range(min(FITTED, len(windows))):
        window = windows[i * len(windows) // min(FITTED, len(windows))]
        run = model.run(torch.tensor([window.tokens]), record=[*model.sites(kind), end], logits="none")
        streams, last = (
            torch.stack([run[site][0, 1:].double().to(model.device) for site in sites]) for sites in (model.sites(kind), [end])
        )
        moments.add(streams, last[0] / last[0].square().mean(dim=-1, keepdim=True).sqrt())
        step()
    return solved(moments)


def solved(moments: Moments) -> Fit:
    """Ridge regression at each layer: what does the stream (at size one) lack of the last one (at size one)?"""
    assert isinstance(moments.squares, Tensor) and isinstance(moments.stream, Tensor) and isinstance(moments.last, Tensor)
    mean, last = moments.stream / moments.count, moments.last / moments.count
    second, crossed = moments.squares / moments.count, moments.products / moments.count
    size = second.diagonal(dim1=1, dim2=2).mean(dim=1).sqrt()
    covariance = second - mean[:, :, None] * mean[:, None]
    spread = covariance.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    least = 1e-3 * spread.median(dim=1, keepdim=True).values + torch.finfo(torch.float32).tiny
    spread = spread.maximum(least)
    missing = crossed - mean[:, :, None] * last - covariance / size[:, None, None]
    ridge = RIDGE * torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)
    alike = covariance / (spread[:, :, None] * spread[:, None]) + ridge
    change = torch.linalg.solve(alike, missing / spread[:, :, None]).mT
    shift = last - mean / size[:, None]
    return Fit(mean=mean.float(), spread=spread.float(), size=size.float(), change=change.float(), shift=shift.float())


class Learning:
    """Maps that learn: they read each dimension at mean 0 and spread 1, and what they add is in sizes of the stream."""

    def __init__(self, model: Model, kind: str, fit: Fit) -> None:
        self.model, self.kind, self.fit = model, kind, fit
        self.layers = range(len(fit.mean) - (kind == "resid_post"))  # the last stream is what the final norm reads anyway
        self.change = [fit.change[layer].clone().requires_grad_() for layer in self.layers]
        self.shift = [fit.shift[layer].clone().requires_grad_() for layer in self.layers]
        groups = [{"params": some, "lr": rate} for some, rate in zip((self.change, self.shift), RATES, strict=True)]
        self.adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self.steps = self.positions = 0
        self.units: set[int] = set()  # the documents that it has learned from

    def translate(self, layer: int, stream: Tensor) -> Tensor:
        """The stream of a layer as its map has it now."""
        fit = self.fit
        standard = (stream - fit.mean[layer]) / fit.spread[layer]
        return stream + fit.size[layer] * (standard @ self.change[layer].T + self.shift[layer])

    def learn(self, seen: Seen, rate: float) -> None:
        """One step; the model's weights take no part in it."""
        for group, full in zip(self.adam.param_groups, RATES, strict=True):
            group["lr"] = rate * full
        self.adam.zero_grad()
        final = ending(self.model, seen.final)
        with torch.enable_grad():
            for layer in self.layers:
                loss = divergence(self.model, self.translate(layer, seen.streams[layer]), final).mean()
                loss.backward(inputs=[self.change[layer], self.shift[layer]])
        self.adam.step()
        self.steps, self.positions = self.steps + 1, self.positions + len(final)
        self.units |= set(seen.unit.tolist())

    @torch.no_grad()
    def folded(self, layer: int) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, " d_model"]]:
        """Change and shift of a layer in the stream's own coordinates."""
        size, change = self.fit.size[layer], self.fit.size[layer] * self.change[layer] / self.fit.spread[layer]
        return change, size * self.shift[layer] - change @ self.fit.mean[layer]


@dataclass(kw_only=True)
class Best:
    """The best map of each layer so far, and its divergence by validation row."""

    change: Float[Tensor, "layer d_model d_model"]
    shift: Float[Tensor, "layer d_model"]
    rows: Float[Tensor, "layer row"]

    def keep(self, learning: Learning, rows: Float[Tensor, "layer row"]) -> bool:
        """Keep the maps of layers that have improved; whether any has."""
        better = (rows.mean(dim=1) < self.rows.mean(dim=1)).nonzero().flatten().tolist()
        for layer in better:
            self.change[layer], self.shift[layer] = learning.folded(layer)
            self.rows[layer] = rows[layer]
        return bool(better)


def learn(learning: Learning, parts: Parts, validation: Seen, steps: int, generator: torch.Generator, step: Tally) -> Best:
    """Train until nothing improves any more, and return the best maps."""
    model, layers = learning.model, learning.layers
    width = model.anatomy.d_model
    best = Best(
        change=torch.zeros(len(layers), width, width, device=model.device),
        shift=torch.zeros(len(layers), width, device=model.device),
        rows=divergences(model, validation, lambda layer, stream: stream, layers),
    )
    best.keep(learning, divergences(model, validation, learning.translate, layers))  # where it begins
    windows, since = _endless(parts.training, generator), 0
    for number in range(1, steps + 1):
        learning.learn(look(model, next(windows), learning.kind, rows=AT_ONCE, generator=generator), rate(number, steps))
        step()
        if number % EVERY == 0 or number == steps:
            since = 0 if best.keep(learning, divergences(model, validation, learning.translate, layers)) else since + 1
            if since == PATIENCE:
                break
    return best


def rate(number: int, steps: int) -> float:
    """The share of the full rate at a step, counted from 1: up for a tenth of the steps, then down to zero."""
    rising = max(1, round(WARMING * steps))
    return number / rising if number < rising else (steps + 1 - number) / (steps + 1 - rising)


def _trained_on(corpus: Corpus, parts: Parts, learning: Learning, steps: int, seed: int) -> dict[str, object]:
    """What was read, and how much of it was learned from."""
    return {
        "corpus": corpus.name,
        "corpus_digest": corpus.digest,
        "documents": {"training": len(learning.units), "validation": len(parts.validation), "test": len(parts.test)},
        "positions": learning.positions,
        "steps": learning.steps,
        "stopped_early": learning.steps < steps,
        "seed": seed,
        "innerworks": innerworks.__version__,
    }


# --- what it comes to --------------------------------------------------------------------------------------------


def by_document(rows: Float[Tensor, "layer row"], seen: Seen, parts: Parts) -> tuple[Array, list[str]]:
    """Means `[document, layer]`, and the domain of each document."""
    units = seen.unit.unique().tolist()
    means = torch.stack([rows[:, (seen.unit == unit).to(rows.device)].double().mean(dim=1) for unit in units])
    return means.numpy(force=True), [parts.strata[unit] for unit in units]


def _decided(learning: Learning, best: Best, validation: Seen, parts: Parts) -> tuple[Tensor, Tensor, list[bool]]:
    """The maps of all layers, the identity where the gain on validation documents may be none; and which are tuned."""
    model, layers = learning.model, learning.layers
    plain = divergences(model, validation, lambda layer, stream: stream, layers)
    gain, strata = by_document(plain - best.rows, validation, parts)
    count, width = len(model.sites(learning.kind)), model.anatomy.d_model
    tuned = [bool(low > 0) for low in estimate(gain, strata).low] + [False] * (count - len(layers))
    change, shift = torch.zeros(count, width, width), torch.zeros(count, width)
    for layer in layers:
        if tuned[layer]:
            change[layer], shift[layer] = best.change[layer].cpu(), best.shift[layer].cpu()
    return change, shift, tuned


def _held_out(model: Model, lens: TunedLens, tuned: Sequence[bool], test: Seen, parts: Parts) -> tuple[HeldOut, ...]:
    """Both lenses on documents that nothing was learned or chosen from."""
    both = [divergences(model, test, one, range(len(tuned))) for one in (lambda layer, stream: stream, lens)]
    (plain, strata), (mapped, _) = (by_document(rows, test, parts) for rows in both)
    gain = estimate(plain - mapped, strata)
    return tuple(
        HeldOut(
            site=site,
            tuned=tuned[layer],
            logit_lens=float(plain[:, layer].mean()),
            tuned_lens=float(mapped[:, layer].mean()),
            gain=float(gain.mean[layer]),
            gain_low=float(gain.low[layer]),
            gain_high=float(gain.high[layer]),
            n=gain.n,
        )
        for layer, site in enumerate(model.sites(lens.kind))
    )
