"""Which neurons of a model have their like in another one?

1. Both models read the same text (`stretches.py`).
2. On discovery documents, each neuron of A finds its best match among all neurons of B, and among as many rotated ones
   (`match.py`).
3. On confirmation documents the correlations with these two are measured, and their difference: the *excess* (`agreement.py`).
4. *Universal* is a neuron whose excess lies above .5: a candidate by discovery, its interval on confirmation above the floor, and
   q <= .05 over all candidates.

Gurnee et al. 2024, arXiv:2401.12181, whose floor this is. There, the rotation was a random matrix that is not orthogonal, and one
text chose the match and measured it. What universal neurons do, and whether the model needs them, is not asked here.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from innerworks.errors import UnsupportedModel
from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.model.tally import Tally
from innerworks.neurons.universal import activations
from innerworks.neurons.universal.agreement import Agreement, agreement
from innerworks.neurons.universal.match import Matches, matches
from innerworks.neurons.universal.stretches import Texts, texts_of
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array, Half, adjust
from innerworks.text import Corpus

if TYPE_CHECKING:
    import polars

FLOOR = 0.5  # of the excess of a universal neuron, as in the paper
LEAST_SHARE = 0.01  # of neurons that are universal: the range of the claim begins here
TOKENS = 10_000
BEHAVIOUR = "universal_neuron"


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of some neurons are universal: those shown to be, those whose excess is above the floor, those not excluded."""

    neurons: int
    shown: float
    share: float
    not_excluded: float
    correlation: float  # with the match, on average
    baseline: float  # with the rotated match
    matched_in: str  # the layer of B that holds most matches of universal neurons


@dataclass(frozen=True, kw_only=True)
class Universality:
    """What two models have in common; arrays `[layer, neuron]` over the layers of A that have neurons.

    correlation, baseline: with the match and the rotated match, on confirmation, -1 to 1. excess: their difference with its
    interval over documents; low, high: its ends. q: of candidates, NaN elsewhere. match_layer, match_index: of B.
    """

    models: tuple[str, str]
    corpus: str
    places: dict[str, int]  # in each half
    documents: dict[str, int]
    layers: tuple[int, ...]
    match_layer: np.ndarray
    match_index: np.ndarray
    correlation: Array
    baseline: Array
    excess: Array
    low: Array
    high: Array
    mde: Array
    df: int
    p: Array
    q: Array
    universal: np.ndarray

    @property
    def share(self) -> Share:
        """Of all neurons."""
        return self._share(slice(None))

    @property
    def by_layer(self) -> dict[int, Share]:
        """Of the neurons of each layer of A."""
        return {layer: self._share(i) for i, layer in enumerate(self.layers)}

    def _share(self, which: Any) -> Share:
        universal = self.universal[which]
        found = Counter(self.match_layer[which][universal].tolist())
        return Share(
            neurons=int(universal.size),
            shown=float(universal.mean()),
            share=float((self.excess[which] > FLOOR).mean()),
            not_excluded=float((self.high[which] > FLOOR).mean()),
            correlation=float(self.correlation[which].mean()),
            baseline=float(self.baseline[which].mean()),
            matched_in=f"L{found.most_common(1)[0][0]}" if found else "",
        )

    def frame(self) -> "polars.DataFrame":
        """One row per neuron of A."""
        import polars as pl

        layer = np.repeat(self.layers, self.universal.shape[1])
        index = np.tile(np.arange(self.universal.shape[1]), len(self.layers))
        names = ("correlation", "baseline", "excess", "low", "high", "p", "q", "universal")
        columns = {name: getattr(self, name).reshape(-1) for name in names}
        pairs = zip(self.match_layer.reshape(-1).tolist(), self.match_index.reshape(-1).tolist(), strict=True)
        return pl.DataFrame(
            {
                "site": [str(Site(layer=at, neuron=n)) for at, n in zip(layer.tolist(), index.tolist(), strict=True)],
                "match": [str(Site(layer=at, neuron=n)) for at, n in pairs],
                **columns,
            }
        ).with_columns(pl.col("q").fill_nan(None))

    def as_dict(self) -> dict[str, Any]:
        """What it comes to, as plain data."""
        said = {"models": list(self.models), "corpus": self.corpus, "places": self.places, "documents": self.documents}
        by_layer = [{"layer": layer, **asdict(one)} for layer, one in self.by_layer.items()]
        return {**said, "floor": FLOOR, **asdict(self.share), "by_layer": by_layer}


def universality(
    a: Model,
    b: Model,
    corpus: Corpus,
    *,
    tokens: int = TOKENS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Universality:
    """Which neurons of A have their like in B?

    tokens: places read in all, half of them to find matches, half to measure them. progress: places read so far, and in all.
    Memory: 1 GiB of activations of each model. Raises UnsupportedModel for a model without plain neurons, TextError and
    UsageError for too little text.
    """
    for model in (a, b):
        if not activations.layers_of(model):
            raise UnsupportedModel(f"Every layer of {model.name} is a mixture of experts: it has no plain neurons to compare.")
    texts = texts_of((a, b), corpus, tokens=tokens)
    step = Tally(says=progress, total=sum(_readings((a, b), one) * one.size for one in texts.values()))
    found = matches((a, b), texts["discovery"], seed=seed, step=step)
    agreed = agreement((a, b), texts["confirmation"], found, seed=seed, step=step)
    return _settled((a, b), corpus.name, texts, found, agreed)


def multiplications(a: Model, b: Model, places: int) -> float:
    """How many multiplications it takes to match all neurons, roughly: beside them, nothing else counts."""
    sizes = [len(activations.layers_of(model)) * model.anatomy.neurons for model in (a, b)]
    return 2.0 * places * sizes[0] * sizes[1]


def _readings(models: tuple[Model, Model], texts: Texts) -> int:
    """How often a half is read in all: A once per block of its layers, B once per block of its own for each of those."""
    first, second = (activations.blocks(model, texts.size) for model in models)
    return len(first) * (1 + len(second))


def _settled(
    models: tuple[Model, Model], corpus: str, texts: dict[Half, Texts], found: Matches, agreed: Agreement
) -> Universality:
    excess = agreed.excess
    on_discovery = (found.correlation[0].abs() - found.correlation[1].abs()).numpy(force=True)
    candidates = on_discovery > FLOOR
    p, q = excess.p_above(FLOOR), np.full(candidates.shape, np.nan)
    q[candidates] = adjust(p[candidates])
    of_b = np.array(activations.layers_of(models[1]))
    return Universality(
        models=(models[0].name, models[1].name),
        corpus=corpus,
        places={half: one.size for half, one in texts.items()},
        documents={half: len(one.strata) for half, one in texts.items()},
        layers=tuple(activations.layers_of(models[0])),
        match_layer=of_b[found.layer[0].numpy(force=True)],
        match_index=found.index[0].numpy(force=True),
        correlation=agreed.correlation,
        baseline=agreed.baseline,
        excess=excess.mean,
        low=excess.low,
        high=excess.high,
        mde=excess.mde(FLOOR),
        df=excess.df,
        p=p,
        q=q,
        universal=candidates & (np.nan_to_num(q, nan=1.0) <= CONSTANTS.level) & (excess.low > FLOOR),
    )


def findings(result: Universality) -> list[Finding]:
    """Rows for the ledger: the share of universal neurons, and each of them."""
    return [_share_row(result), *_rows(result)]


def _rows(result: Universality) -> list[Finding]:
    def at(values: np.ndarray, place: tuple[int, int]) -> float:
        return float(values[place])

    return [
        Finding(
            chapter="neurons",
            behaviour=BEHAVIOUR,
            site=str(Site(layer=result.layers[row], neuron=index)),
            layer=result.layers[row],
            index=index,
            measure="excess_correlation",
            material="text",
            value=at(result.correlation, (row, index)),
            unit="correlation",
            effect=at(result.excess, (row, index)),
            effect_low=at(result.low, (row, index)),
            effect_high=at(result.high, (row, index)),
            n=result.documents["confirmation"],
            df=result.df,
            null=at(result.baseline, (row, index)),
            null_kind="rotated neurons",
            floor=FLOOR,
            p=at(result.p, (row, index)),
            mde=at(result.mde, (row, index)),
            q=at(result.q, (row, index)),
            rung=1,
            note=f"like L{result.match_layer[row, index]}N{result.match_index[row, index]} of {result.models[1]}",
        )
        for row, index in np.argwhere(result.universal).tolist()
    ]


def _share_row(result: Universality) -> Finding:
    share = result.share
    return Finding(
        chapter="neurons",
        behaviour=BEHAVIOUR,
        site="model",
        measure="universal_share",
        material="text",
        value=share.share,
        unit="share",
        effect=share.share,
        effect_low=share.shown,
        effect_high=share.not_excluded,
        n=result.documents["confirmation"],
        null=0.0,
        null_kind="rotated neurons",
        floor=LEAST_SHARE,
        p=None,
        mde=None,
        note=f"against {result.models[1]}; the interval goes from those shown to be universal to those not excluded",
    )
