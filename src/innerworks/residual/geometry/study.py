"""The geometry of the stream as a study of a scan: rogue dimensions, massive activations, anisotropy, and what is lost without.

1. In the shared pass: the size of every dimension, document by document (`watch.py`); candidates are chosen on discovery.
2. A sample of confirmation documents is read once more: how alike tokens are, with and without the rogue dimensions of the layer,
   over how many dimensions they spread, and what rogue dimensions go with.
3. The dimensions are taken out over the stretches of layers where they stick out, against 20 draws of either sort of control.

It does not say why a model has such dimensions. Kovaleva et al. 2021, arXiv:2105.06990; Timkey and van Schijndel 2021,
arXiv:2109.04404; Sun et al. 2024, arXiv:2402.17762.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from innerworks.findings import Finding
from innerworks.model import Mean, Model
from innerworks.model.harms import Way, changes
from innerworks.model.losses import document_losses
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units
from innerworks.residual.geometry import decide, decide_cloud, decide_removal
from innerworks.residual.geometry.choose import chosen, means
from innerworks.residual.geometry.cloud import Cloud, cloud
from innerworks.residual.geometry.encode import correlations, log_counts
from innerworks.residual.geometry.removal import HOWS, How, Stretch, other_directions, other_stretches, removed, turned
from innerworks.residual.geometry.sample import sample
from innerworks.residual.geometry.watch import ORDINARY, Sizes, sorts_of
from innerworks.sites import Site
from innerworks.stats import CONSTANTS
from innerworks.text import TextBatch

ENCODED = 8  # dimensions whose correlations are taken, those that stick out furthest


@dataclass(frozen=True, kw_only=True)
class Effort:
    """looked: documents of the sample; removed: documents that ablations are tried on; tokens: of either.

    stretches: how many are taken out, the longest; hows, against: ways of taking out, and sorts of control.
    """

    looked: int
    removed: int
    tokens: int
    stretches: int
    hows: tuple[How, ...]
    against: tuple[str, ...]


EFFORTS = {
    "quick": Effort(looked=32, removed=16, tokens=24, stretches=1, hows=("zero",), against=("dimensions",)),
    "standard": Effort(looked=40, removed=16, tokens=24, stretches=2, hows=HOWS, against=tuple(decide_removal.CONTROLS)),
    "full": Effort(looked=64, removed=64, tokens=64, stretches=8, hows=HOWS, against=tuple(decide_removal.CONTROLS)),
}


class Geometry:
    """Which dimensions of the stream stick out, what do they make of its shape, and what is lost without them?"""

    name = "geometry"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """The size of every dimension."""
        return [Sizes()]

    def measure(self, given: Given) -> Kept:
        """Choose, look at a sample, take out; goes on from `given.saved`."""
        effort, state = EFFORTS[given.depth], given.states[Sizes.name]
        mean = Mean(values={"resid_post": means(state)}, over="ordinary tokens of the discovery half")
        kept = given.saved
        if kept is None:
            kept = _look(given, effort, Kept(arrays=chosen(state), about={"removed": []}), mean)
            given.save(kept)
        return _remove(given, effort, kept, mean) if "cosine" in kept.arrays else kept

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Rows of dimensions, layers, and ablations."""
        found = decide.findings(kept)
        if "cosine" not in kept.arrays:
            return [*before, *found]
        return [*before, *decide_removal.raised(kept, found), *decide_cloud.findings(kept)]


# --- the sample --------------------------------------------------------------------------------------------------


def _look(given: Given, effort: Effort, kept: Kept, mean: Mean) -> Kept:
    """The cloud of every layer, and correlations of the rogue dimensions."""
    model, labels = given.model, decide.rogue(kept)
    batches = sample(given.reading, documents=effort.looked, tokens=effort.tokens)
    count = sum(len(batch.tokens) for batch in batches)
    if count < CONSTANTS.least_units:
        return replace(kept, about={**kept.about, "not looked at": f"{count} documents are long enough: too few to decide on"})
    counts = log_counts(given.reading, model.anatomy.vocab)
    best = _where_furthest(labels)
    found, encoded = [], {}
    streams = [_recorded(model, batch) for batch in batches]
    rng = np.random.default_rng(given.seed)
    for layer in range(model.anatomy.layers):
        rows = [one for batch, stream in zip(batches, streams, strict=True) for one in _ordinary(batch, stream[layer])]
        left_out = sorted(dimension for at, dimension in labels if at == layer)
        found.append(
            cloud([points for points, _, _ in rows], mean.of(Site(layer=layer, kind="resid_post")).double(), left_out, rng)
        )
        for dimension in (dimension for at, dimension in best if at == layer):
            encoded[layer, dimension] = _encoded(rows, dimension, counts)
        given.step(layer + 1, model.anatomy.layers, "layers looked at")
    left_out = np.array([sum(at == layer for at, _ in labels) for layer in range(model.anatomy.layers)])
    places = sorted(encoded)
    arrays = {
        **_packed(found),
        "left_out": left_out,
        "encoded": np.array(places, dtype=np.int64).reshape(-1, 2),
        "correlations": np.stack([encoded[at] for at in places]) if places else np.zeros((0, 2, 2, 0)),
    }
    return replace(kept, arrays={**kept.arrays, **arrays})


def _where_furthest(labels: dict[decide.Place, float]) -> list[decide.Place]:
    """Of each rogue dimension the layer where it sticks out furthest; of these places the furthest."""
    best: dict[int, decide.Place] = {}
    for at in sorted(labels, key=lambda at: labels[at]):
        best[at[1]] = at
    return sorted(best.values(), key=lambda at: -labels[at])[:ENCODED]


@torch.no_grad()
def _recorded(model: Model, batch: TextBatch) -> list[Tensor]:
    batch = batch.to(model.device)
    run = model.run(batch.tokens, mask=batch.mask, record="L*.resid_post", logits="none", to="cpu")
    return [run.recorded["resid_post", layer] for layer in range(model.anatomy.layers)]


def _ordinary(batch: TextBatch, stream: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each document the ordinary tokens' stream, ids and positions."""
    rows = sorts_of(stream.float(), batch.mask)[ORDINARY]
    each = zip(stream, batch.tokens, rows, strict=True)
    return [(one[mine].double(), ids[mine], mine.nonzero()[:, 0]) for one, ids, mine in each]


def _encoded(rows: Sequence[tuple[Tensor, Tensor, Tensor]], dimension: int, counts: np.ndarray) -> np.ndarray:
    """Correlations with frequency and with position, of the dimension and averaged over all others: `[feature, 2, document]`."""
    result = np.zeros((2, 2, len(rows)))
    for number, (points, ids, positions) in enumerate(rows):
        features = np.stack([counts[ids.numpy()], positions.numpy().astype(np.float64)])
        every = correlations(points.abs().numpy(), features)
        own = every[:, dimension]
        result[:, 0, number], result[:, 1, number] = own, (every.sum(axis=1) - own) / (every.shape[1] - 1)
    return result


def _packed(found: Sequence[Cloud]) -> dict[str, np.ndarray]:
    """Kind or part first, then layer, then pair or document."""
    first = {name: np.stack([getattr(one, name) for one in found], axis=1) for name in ("cosine", "dots", "squares")}
    second = {name: np.stack([getattr(one, name) for one in found]) for name in ("log_length", "log_ratio", "entropy_rank")}
    return {**first, **second}


# --- taking out --------------------------------------------------------------------------------------------------


def _remove(given: Given, effort: Effort, kept: Kept, mean: Mean) -> Kept:
    """Take out the longest stretches, then run controls where that does harm; what was done before is not done again."""
    labels = decide.rogue(kept)
    known = sorted({dimension for _, dimension in labels})
    if given.model.anatomy.d_model - len(known) < max(CONSTANTS.joint_members, len(known)):
        return replace(kept, about={**kept.about, "not removed": "hardly a dimension sticks out nowhere: no controls"})
    for stretch in decide.stretches(labels)[: effort.stretches]:
        for how in effort.hows:
            kept = _remove_one(given, effort, kept, mean, stretch, how, known)
    return kept


def _remove_one(given: Given, effort: Effort, kept: Kept, mean: Mean, stretch: Stretch, how: How, known: Sequence[int]) -> Kept:
    told = {"first": stretch.first, "last": stretch.last, "dimensions": list(stretch.dimensions), "how": how}
    if any(told.items() <= one.items() for one in kept.about["removed"]):
        return kept
    model, width = given.model, given.model.anatomy.d_model
    (harm,) = _harms(given, effort, [removed(model, stretch, how, mean)], stretch)
    arrays = {decide_removal.name_of(stretch, how, "harm"): harm}
    if decide_removal.worth_controls(harm):
        ways = {
            "dimensions": lambda: [
                removed(model, one, how, mean) for one in other_stretches(stretch, known, width, seed=given.seed)
            ],
            "directions": lambda: [
                turned(model, stretch, how, mean, along) for along in other_directions(stretch, width, seed=given.seed)
            ],
        }
        for against in effort.against:
            arrays[decide_removal.name_of(stretch, how, against)] = _harms(given, effort, ways[against](), stretch)
    about = {**kept.about, "removed": [*kept.about["removed"], {**told, "against": list(effort.against)}]}
    kept = Kept(arrays={**kept.arrays, **arrays}, about=about)
    given.save(kept)
    return kept


def _harms(given: Given, effort: Effort, ways: Sequence[Way], stretch: Stretch) -> np.ndarray:
    """Rise of each document's loss, in nats per token: `[way, document]`."""
    model = given.model
    batches = sample(given.reading, documents=effort.removed, tokens=effort.tokens)
    count = given.tally(len(ways) * len(batches), f"runs without {stretch}")
    found = changes(model, batches, ways, lambda batch, final: document_losses(model, final, batch), step=count)
    return found.astype(np.float32)
