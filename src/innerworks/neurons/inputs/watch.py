"""What do all feed-forward neurons respond to? One pass over all of them, by contracting activations with token features.

The activation of a neuron is the input of the down projection (in gated families, gate times value). It can be negative, and its
sign means nothing by itself: turning both what is read and what is written around changes nothing. So all here is about variance.

0. Before the pass a small sample says to which limits activations are clipped (`limits.py`); the limits are kept with the sums.
1. Discovery: sums of `x xᵀ` and `x a` over rows (real tokens but the first of a text), apart for the parts of the token types.
   At the first batch of confirmation they become ridge fits (`fits.py`) and triggers (`detectors.py`), and stay so.
2. Confirmation: per document and family, by how much the fit with the family beats the one without it. Families that the token
   itself decides are fitted on one half of the token types and tested on the other, without columns for single tokens, and
   their gains are also added up by token type (`buckets.py`). On generated tokens position alone is asked. One row in two is
   tested, of a document's first window.
3. All along: the strongest activations on either side of zero with their places, a histogram, how many documents there are.

It does not say what a neuron writes, nor whether anything depends on it. Gurnee et al. 2024, arXiv:2401.12181; Voita et al. 2023,
arXiv:2309.04827.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.errors import UsageError
from innerworks.model import Model, strongest
from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import State, zeros
from innerworks.neurons.inputs import buckets, detectors, histogram
from innerworks.neurons.inputs.design import OF_THE_TOKEN, PARTS, TESTED, Design
from innerworks.neurons.inputs.detectors import Detectors
from innerworks.neurons.inputs.fits import Asked, Fit, ask, fit, gains, row_gains
from innerworks.neurons.inputs.limits import limits, sample
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Half
from innerworks.text import Reading, TextBatch

EVERY = 2  # one confirmation row in so many is tested
COUNTED = 16  # one row in so many is counted in the histogram
K = 8  # strongest contexts that are kept of a neuron, on either side of zero
HALVES: tuple[Half, Half] = ("discovery", "confirmation")
WHERE = (*HALVES, "random")  # parts of a reading whose strongest contexts are kept apart
OTHERS = slice(0, TESTED)  # parts of the token types that are fitted on

#: fit -> the families tested with it. `full`: all columns and types. `types`: fitted on half of the types, no single tokens.
FITS = {"full": ("position", "token", "previous_token"), "types": OF_THE_TOKEN, "generated": ("position",)}
TESTS = tuple((name, family) for name, families in FITS.items() for family in families)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What discovery comes to, and confirmation never changes."""

    mean: Float[Tensor, "layer neuron"]  # of clipped activations, on the text
    mean_generated: Float[Tensor, "layer neuron"]
    fits: dict[str, Fit]  # of activations less their mean
    detectors: Detectors


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A window as confirmation tests it. rows: places in the window; tested: which of them are of token types to test on."""

    rows: Int[Tensor, " row"]
    tested: Int[Tensor, " some"]
    bucket: Int[Tensor, " some"]  # of their types
    asked: dict[str, Asked]


class Inputs:
    """The instrument: all neurons of all layers."""

    name = "neuron_inputs"
    kinds: Sequence[str] = ("neurons",)

    def __init__(self, model: Model) -> None:
        self.model = model
        self._frozen: Frozen | None = None

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Limits from a sample, all sums zero."""
        if len(reading.units) >= 2**strongest.UNIT:
            raise UsageError(f"{len(reading.units):,} documents are too many to keep apart; {2**strongest.UNIT:,} are the most.")
        self.design = Design.of(self.model.tokenizer, reading, vocab=anatomy.vocab)
        self._columns = columns_of(self.design)
        self._groups = {name: i for i, name in enumerate(groups_of(reading))}
        self._windows, self._bits = window_numbers(reading), position_bits(reading)
        self._reading, self._frozen = reading, None
        return self._empty(anatomy, reading)

    def _empty(self, anatomy: Anatomy, reading: Reading) -> State:
        layers, neurons = anatomy.layers, anatomy.neurons
        columns, generated = len(self.design.columns), len(self._columns["generated"])
        fixed = limits(self.model, sample(reading))
        by_test = len(self._groups), len(TESTS)

        def small(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, layers, neurons, dtype=dtype)

        return {
            "fixed_low": fixed.low,
            "fixed_high": fixed.high,
            "fixed_stream": fixed.stream,
            "gram": zeros(PARTS, columns, columns),
            "product": torch.zeros(PARTS, layers, columns, neurons),
            "squares": small(PARTS),  # of clipped activations, by part of the token types
            "gram_generated": zeros(generated, generated),
            "product_generated": torch.zeros(layers, generated, neurons),
            "squares_generated": small(),
            "gain": small(*by_test),
            "gain_squared": small(*by_test),
            "gained": small(*by_test),  # units whose gain is positive
            "units": zeros(*by_test),
            "total": small(len(TESTS)),  # squares around the mean of the rows tested on
            "documents": zeros(len(HALVES)),
            "strongest": torch.full((len(WHERE), 2, layers, neurons, K), strongest.EMPTY),
            "histogram": torch.zeros(layers, neurons, histogram.BINS, dtype=torch.int32),
            **buckets.empty(layers, neurons),
            **detectors.empty(layers, neurons),
        }

    # --- a batch -------------------------------------------------------------------------------------------------

    def begin_batch(self, batch: TextBatch) -> None:
        """Look up the features."""
        real = batch.mask.clone()
        real[:, 0] = False
        self._features, self._lengths = self.design.rows(batch.tokens), batch.mask.sum(dim=1).tolist()
        part = self.design.part.to(batch.tokens.device)[batch.tokens]
        self._tested, flat = part == TESTED, real.flatten().nonzero()[:, 0]
        parts = [flat[part.flatten()[flat] == one] for one in range(PARTS)]
        self._flat = parts if batch.material == "text" else [flat]
        self._counted = flat[(flat % batch.tokens.shape[1]) % COUNTED == COUNTED // 2]
        texts = batch.tokens.tolist()
        keys = [
            (unit, tuple(text[:length])) for unit, text, length in zip(batch.units.tolist(), texts, self._lengths, strict=True)
        ]
        self._window = torch.tensor([self._windows.get(key, 0) for key in keys])
        self._peaks: dict[int, Tensor] = {}
        self._rows: list[_Row] | None = None

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Add one layer's activations `[batch, seq, neuron]`."""
        layer = site.layer
        assert layer is not None
        a = activation.to(batch.tokens.device, torch.float32)
        low, high = (state[name][layer].to(a.device) for name in ("fixed_low", "fixed_high"))
        self._peaks[layer] = self._peak(a)
        if batch.material == "text":
            counted = a.flatten(0, 1).index_select(0, self._counted)
            histogram.add(state["histogram"][layer], histogram.bins(counted, low, high))
        if batch.half == "discovery":
            self._accumulate(state, batch, layer, a, low, high)
        else:
            self._test(state, batch, layer, a, low, high)

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Keep the strongest contexts, and count."""
        self._keep_strongest(state, batch)
        first = self._window == 0
        if batch.material == "text":
            state["documents"][HALVES.index(batch.half)] += int((first & (torch.tensor(self._lengths) > 1)).sum())
        if batch.half == "confirmation":
            for row in self._confirmed(state, batch):
                for name, asked in row.asked.items():
                    for i, (of, _) in enumerate(TESTS):
                        state["units"][self._group(batch), i] += of == name and len(asked.x) > 0
                if "types" in row.asked:
                    buckets.count(state, row.bucket)
            return
        features = self._features.flatten(0, 1)
        if batch.material == "random":
            x = features[self._flat[0]][:, self._columns["generated"]].double().cpu()
            state["gram_generated"] += x.mT @ x
            return
        for part, chosen in enumerate(self._flat):
            x = features[chosen].double().cpu()
            state["gram"][part] += x.mT @ x

    def _group(self, batch: TextBatch) -> int:
        return self._groups[batch.stratum if batch.stratum in self._groups else batch.material]

    # --- strongest contexts --------------------------------------------------------------------------------------

    def _peak(self, a: Float[Tensor, "batch seq neuron"]) -> Float[Tensor, "side batch neuron"]:
        """Each row's largest and smallest activation, the place of each in the last bits of its number."""
        mask = 2**self._bits - 1
        places = torch.arange(a.shape[1], dtype=torch.int32, device=a.device)[:, None]
        found = torch.zeros(2, a.shape[0], a.shape[2], device=a.device)
        for row, length in enumerate(self._lengths):
            if length > 1:
                tagged = (a[row, 1:length].contiguous().view(torch.int32) & ~mask).bitwise_or_(places[1:length])
                found[0, row], found[1, row] = tagged.view(torch.float32).amax(dim=0), tagged.view(torch.float32).amin(dim=0)
        return found

    def _keep_strongest(self, state: State, batch: TextBatch) -> None:
        layers = sorted(self._peaks)
        if not layers:
            return
        mask = 2**self._bits - 1
        bits = torch.stack([self._peaks[layer] for layer in layers], dim=1).view(torch.int32).cpu()  # side layer batch neuron
        value = (bits & ~mask).view(torch.float32)
        value[1] *= -1
        unit, window = (x[:, None].expand(value.shape) for x in (batch.units, self._window))
        entries = strongest.pack(value, unit, window, (bits & mask).long()).movedim(2, -1)
        where = WHERE.index("random" if batch.material == "random" else batch.half)
        held = state["strongest"][where][:, layers]
        join = strongest.join_new if not bool(self._window.any()) else strongest.join
        state["strongest"][where][:, layers] = join(held, entries)

    # --- discovery -----------------------------------------------------------------------------------------------

    def _accumulate(self, state: State, batch: TextBatch, layer: int, a: Tensor, low: Tensor, high: Tensor) -> None:
        flat, features = a.flatten(0, 1), self._features.flatten(0, 1)
        if batch.material == "random":
            chosen = torch.clamp(flat.index_select(0, self._flat[0]), low, high)
            x = features[self._flat[0]][:, self._columns["generated"]]
            state["product_generated"][layer] += (x.mT @ chosen).cpu()
            state["squares_generated"][layer] += _squares(chosen).cpu()
            return
        for part, rows in enumerate(self._flat):
            chosen = torch.clamp(flat.index_select(0, rows), low, high)
            state["product"][part, layer] += (features[rows].mT @ chosen).cpu()
            state["squares"][part, layer] += _squares(chosen).cpu()

    # --- confirmation --------------------------------------------------------------------------------------------

    def _test(self, state: State, batch: TextBatch, layer: int, a: Tensor, low: Tensor, high: Tensor) -> None:
        """By how much is each unit of a batch told better with each family than without it?"""
        frozen = self.frozen(state)
        text = batch.material == "text"
        mean = (frozen.mean if text else frozen.mean_generated)[layer].to(a.device)
        by_type = []
        for i, row in enumerate(self._confirmed(state, batch)):
            if not len(row.rows):
                continue
            seen = torch.clamp(a[i].index_select(0, row.rows), low, high).sub_(mean)
            for name, asked in row.asked.items():
                if name != "types":
                    self._add(state, batch, layer, name, gains(frozen.fits[name], layer, asked, seen), _squares(seen))
                    continue
                rows = seen.index_select(0, row.tested)
                by_row = row_gains(frozen.fits[name], layer, asked, rows)
                by_type.append(buckets.Rows(bucket=row.bucket, gain=by_row, total=rows.square()))
                self._add(state, batch, layer, name, by_row.sum(dim=1), _squares(rows))
        buckets.add(state, layer, by_type)
        if text:
            detectors.add(state, frozen.detectors.layers[layer], batch, self._window == 0, layer, a)

    def _add(self, state: State, batch: TextBatch, layer: int, name: str, gained: Tensor, total: Tensor) -> None:
        group, gained, total = self._group(batch), gained.cpu(), total.cpu()
        tests = [i for i, (of, _) in enumerate(TESTS) if of == name]
        at = slice(tests[0], tests[-1] + 1)
        state["gain"][group, at, layer] += gained
        state["gain_squared"][group, at, layer] += gained.square()
        state["gained"][group, at, layer] += gained > 0
        state["total"][at, layer] += total

    def _confirmed(self, state: State, batch: TextBatch) -> list[_Row]:
        """The windows of a confirmation batch; nothing of those that are not the first of their unit."""
        if self._rows is None:
            frozen, device = self.frozen(state), batch.tokens.device
            names = [name for name in FITS if (name == "generated") == (batch.material == "random")]
            found = []
            for i, length in enumerate(self._lengths):
                rows = torch.arange(1, length if self._window[i] == 0 else 1, EVERY, device=device)
                tested = self._tested[i, rows].nonzero()[:, 0]
                x = self._features[i, rows]
                asked = {
                    name: ask(frozen.fits[name], x[tested] if name == "types" else x)
                    for name in names
                    if len(tested if name == "types" else rows)
                }
                bucket = self.design.bucket.to(device)[batch.tokens[i, rows[tested]]]
                found.append(_Row(rows=rows, tested=tested, bucket=bucket, asked=asked))
            self._rows = found
        return self._rows

    # --- between them --------------------------------------------------------------------------------------------

    def frozen(self, state: State) -> Frozen:
        """What discovery comes to: computed at the first batch of confirmation, from its sums alone."""
        if self._frozen is None:
            self._frozen = freeze(self.design, self._reading, state, self.model.device)
        return self._frozen


def freeze(design: Design, reading: Reading, state: State, device: torch.device) -> Frozen:
    """Fit every neuron on what discovery has added up, and choose triggers."""
    whole = state["gram"].sum(dim=0), state["product"].sum(dim=0)
    generated = state["gram_generated"], state["product_generated"]
    mean, mean_generated = (
        product[:, 0] / float(gram[0, 0].clamp(min=1))  # the first column is a constant
        for gram, product in (whole, generated)
    )
    fits = {
        "full": fit_of(design, "full", *whole).around(mean).to(device),
        "types": fit_of(design, "types", *sums(design, state, OTHERS)).around(mean).to(device),
        "generated": fit_of(design, "generated", *generated).around(mean_generated).to(device),
    }
    chosen = detectors.choose(state["strongest"][0], reading)
    return Frozen(mean=mean, mean_generated=mean_generated, fits=fits, detectors=chosen)


def sums(design: Design, state: State, parts: slice) -> tuple[Tensor, Tensor]:
    """`xᵀx` and `xᵀa` of some parts of the token types, over the columns without single tokens."""
    columns = columns_of(design)["types"]
    gram, product = state["gram"][parts].sum(dim=0), state["product"][parts].sum(dim=0)
    return gram[columns][:, columns], product[:, columns]


def fit_of(design: Design, name: str, gram: Tensor, product: Tensor) -> Fit:
    """One of the fits, from sums over its columns."""
    columns = columns_of(design)[name]
    told = [design.columns[i][0] for i in columns]
    places = {family: [i for i, one in enumerate(told) if one == family] for family in FITS[name]}
    return fit(gram, product, columns, places)


def columns_of(design: Design) -> dict[str, list[int]]:
    """Which columns of the design each fit uses."""
    everything = range(len(design.columns))
    single, position = set(design.places("token")), {0, *design.places("position")}
    return {
        "full": list(everything),
        "types": [i for i in everything if i not in single],
        "generated": [i for i in everything if i in position],
    }


def groups_of(reading: Reading) -> list[str]:
    """The strata within which confirmation units vary: those of the text where each has units enough, else the text as one."""
    counts = Counter(unit.stratum for unit in reading.units if (unit.material, unit.half) == ("text", "confirmation"))
    there = {unit.stratum for unit in reading.units if unit.material == "text"}
    apart = set(counts) == there and min(counts.values(), default=0) >= CONSTANTS.stratified_from
    return [*(sorted(counts) if apart else ["text"]), "random"]


def window_numbers(reading: Reading) -> dict[tuple[int, tuple[int, ...]], int]:
    """Which window of its unit is it? Known by the unit and its tokens; of equal ones the first."""
    seen: Counter[int] = Counter()
    found: dict[tuple[int, tuple[int, ...]], int] = {}
    for window in reading.windows:
        found.setdefault((window.unit, window.tokens), seen[window.unit])
        seen[window.unit] += 1
    return found


def position_bits(reading: Reading) -> int:
    """How many bits a position needs."""
    return max(len(window.tokens) - 1 for window in reading.windows).bit_length()


def _squares(rows: Float[Tensor, "row neuron"]) -> Float[Tensor, " neuron"]:
    return rows.square().sum(dim=0)
