"""Concept neurons as a study of a scan: which are specific to a concept, how many it takes, and does forcing them say it?

Concepts are classes of words, grammatical forms and negation, in sentences of our own (`text/tasks/concepts.py`), told from the
others of their group. Every neuron is tried in either direction on the discovery half; what is chosen there is tested on other
words in other frames.

Suau et al. 2020, arXiv:2005.07647 (experts by average precision, forcing); Gurnee et al. 2023, arXiv:2305.01610 (sparse
probing).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units
from innerworks.neurons.concepts import decide
from innerworks.neurons.concepts.force import PROMPTS, mentions, texts
from innerworks.neurons.concepts.precision import average_precision, by_chance
from innerworks.neurons.concepts.probe import probes
from innerworks.neurons.concepts.respond import SIGNS, longest, responses
from innerworks.neurons.groups import matched_groups, output_norms, times_as_much
from innerworks.neurons.lacking import lacking
from innerworks.neurons.means import NeuronMeans, neuron_reference
from innerworks.neurons.necessity import Neuron
from innerworks.text.tasks.concepts import CLASSES, HALVES, Example, concepts, examples, known

CANDIDATES = 20  # responses of each concept that are tested, the most precise on discovery
FORCED = 32  # neurons that are held at once


@dataclass(frozen=True, kw_only=True)
class Effort:
    """frames: of each example. forced: concepts whose neurons are forced; tokens: generated after each prompt."""

    frames: int
    forced: int = 0
    tokens: int = 0


EFFORTS = {
    "quick": Effort(frames=1),
    "standard": Effort(frames=2, forced=1, tokens=16),
    "full": Effort(frames=3, forced=len(CLASSES), tokens=24),
}


class Concepts:
    """Which neurons are specific to a concept?"""

    name = "neuron_concepts"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """Means, for what an ablation of a neuron would remove: controls are matched by it."""
        return [NeuronMeans()] if not lacking(model, weights=False) else []

    def measure(self, given: Given) -> Kept:
        """Respond, rank, probe, force; goes on from `given.saved`."""
        effort = EFFORTS[given.depth]
        if reason := lacking(given.model, weights=False):
            return Kept(about={"not measured": reason})
        some = known(given.model.tokenizer, examples(frames=effort.frames))
        if not concepts(some):
            return Kept(about={"not measured": "the tokenizer does not know the words of these sentences"})
        tokens, limit = longest(given.model, some), given.model.anatomy.max_positions
        if limit is not None and tokens > limit:
            return Kept(about={"not measured": f"sentences have up to {tokens} tokens, and the model reads {limit}"})
        if given.saved is not None and not effort.forced:
            return given.saved
        total = sum(len(one.sentences) for one in some)
        count = given.tally(total, "sentences")
        found = responses(given.model, some, step=count).numpy()
        ranked = _ranked(some, found)
        kept = _tested(given, some, found, ranked) if given.saved is None else given.saved
        if why := lacking(given.model):
            kept = replace(kept, about={**kept.about, "nothing forced": why})
        given.save(kept)
        return kept if why else _forced(given, effort, some, found, ranked, kept)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Average precisions, probes, and texts in which a forced concept is mentioned."""
        return [*before, *decide.findings(kept)]


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The examples of a group on one half: rows of the responses, and which of them hold each concept."""

    rows: np.ndarray
    positive: Mapping[str, np.ndarray]
    units: tuple[str, ...]

    @classmethod
    def of(cls, some: Sequence[Example], group: str, half: str) -> "_Group":
        rows = [i for i, one in enumerate(some) if (one.group, one.half) == (group, half)]
        names = [some[i].concept for i in rows]
        positive = {name: np.array([one == name for one in names]) for name in dict.fromkeys(names) if name is not None}
        return cls(rows=np.array(rows), positive=positive, units=tuple(some[i].unit for i in rows))


def _groups(some: Sequence[Example], half: str) -> dict[str, _Group]:
    return {group: _Group.of(some, group, half) for group in dict.fromkeys(one.group for one in some)}


Precisions = Float[np.ndarray, "sign layer neuron"]


@dataclass(frozen=True, kw_only=True)
class _Told:
    """How well every response tells a concept on the discovery half.

    precise: average precision, less chance. apart: by how many standard deviations it is higher with the concept than without;
    this tells responses apart that are perfectly precise.
    """

    precise: Precisions
    apart: Precisions

    def best_first(self) -> np.ndarray:
        """Flat numbers of responses."""
        return np.lexsort((-self.apart.ravel(), -self.precise.ravel()))

    def neurons(self, count: int) -> list[tuple[int, int, int]]:
        """So many neurons to force, the best first, each in its better direction: `(sign, layer, neuron)`."""
        order = np.stack(np.unravel_index(self.best_first(), self.precise.shape), axis=1)
        first = np.unique(np.ravel_multi_index(tuple(order[:, 1:].T), self.precise.shape[1:]), return_index=True)[1]
        return [(sign, layer, neuron) for sign, layer, neuron in order[np.sort(first)[:count]].tolist()]


def _precisions(some: Sequence[Example], found: np.ndarray, half: str) -> dict[str, Precisions]:
    """The average precision of every response for every concept on one half, less chance."""
    result = {}
    for group in _groups(some, half).values():
        values, positive = found[group.rows], np.stack(list(group.positive.values()))
        by_layer = [
            average_precision(values[:, :, layer].reshape(len(values), -1).astype(np.float32), positive)
            for layer in range(values.shape[2])
        ]
        whole = np.stack(by_layer, axis=1).reshape(len(positive), values.shape[2], len(SIGNS), -1).swapaxes(1, 2)
        for concept, one in zip(group.positive, whole, strict=True):
            result[concept] = one - by_chance(int(group.positive[concept].sum()), len(values))
    return result


def _ranked(some: Sequence[Example], found: np.ndarray) -> dict[str, _Told]:
    precise, told = _precisions(some, found, HALVES[0]), {}
    for group in _groups(some, HALVES[0]).values():
        values = found[group.rows].astype(np.float32)
        spread = np.maximum(values.std(axis=0), np.finfo(np.float32).tiny)
        for concept, positive in group.positive.items():
            gap = values[positive].mean(axis=0) - values[~positive].mean(axis=0)
            told[concept] = _Told(precise=precise[concept], apart=gap / spread)
    return told


def _tested(given: Given, some: Sequence[Example], found: np.ndarray, ranked: Mapping[str, _Told]) -> Kept:
    """What is kept: of each concept candidates and probes; and which examples of the confirmation half hold what."""
    groups = {half: _groups(some, half) for half in HALVES}
    on_others, arrays = _precisions(some, found, HALVES[1]), dict[str, np.ndarray]()
    for concept, name in concepts(list(some)).items():
        both = groups[HALVES[0]][name], groups[HALVES[1]][name]
        own = _of_concept(found, *both, concept, ranked[concept], on_others[concept])
        arrays |= {f"{concept}/{what}": array for what, array in own.items()}
    held = {
        name: {
            "units": list(group.units),
            "positive": {concept: positive.astype(int).tolist() for concept, positive in group.positive.items()},
        }
        for name, group in groups[HALVES[1]].items()
    }
    about = {"concepts": concepts(list(some)), "groups": held, "seed": given.seed, "responses": int(np.prod(found.shape[1:]))}
    return Kept(arrays=arrays, about=about)


def _of_concept(
    found: np.ndarray, discovery: _Group, confirmation: _Group, concept: str, told: _Told, on_others: Precisions
) -> dict[str, np.ndarray]:
    """Of one concept: candidates and their responses on confirmation, what probes say there, and what is most precise there."""
    before, after = (found[group.rows].reshape(len(group.rows), -1) for group in (discovery, confirmation))
    precise, order = told.precise, told.best_first()[:CANDIDATES]
    chosen = order[precise.flat[order] > decide.FLOOR]
    layer = int(np.unravel_index(order[0], precise.shape)[1])
    of_layer = np.arange(precise.size).reshape(precise.shape)[:, layer].ravel()
    train, other = before[:, of_layer].astype(np.float64), after[:, of_layer].astype(np.float64)
    return {
        "candidates": np.stack(np.unravel_index(chosen, precise.shape), axis=1).astype(np.int64),
        "discovery": precise.flat[chosen].astype(np.float64),
        "responses": np.ascontiguousarray(after[:, chosen].T, dtype=np.float32),
        "best": after[:, int(on_others.argmax())].astype(np.float32),
        "probed": probes(train, discovery.positive[concept], other),
        "layer": np.array([layer]),
    }


# --- forcing -----------------------------------------------------------------------------------------------------


def _forced(
    given: Given, effort: Effort, some: Sequence[Example], found: np.ndarray, ranked: Mapping[str, _Told], kept: Kept
) -> Kept:
    """Force the neurons of the classes that are told best; controls only where more is said of the concept than without."""
    best = {concept: ranked[concept].neurons(FORCED) for concept in CLASSES if concept in ranked}
    first = sorted(best, key=lambda concept: _how_well(ranked[concept], best[concept]), reverse=True)[: effort.forced]
    for concept in first:
        members = [(layer, neuron) for _, layer, neuron in best[concept]]
        signs = [sign for sign, *_ in best[concept]]
        held = _medians(some, found, concept)
        ways: list[Sequence[Neuron]] = [[], members]
        kept = _say(given, effort, kept, concept, "said", ways, held, signs)
        if decide.worth_controls(kept, concept) and f"{concept}/said_controls" not in kept.arrays:
            precise = ranked[concept].precise
            suspects = {(int(layer), int(neuron)) for _, layer, neuron in np.argwhere(precise > decide.FLOOR / 2)}
            written = _written(given, held)[signs]
            groups = matched_groups(members, suspects, written)
            if groups:
                times = {f"{concept}/times_as_much": times_as_much(members, groups, written)}
                kept = replace(kept, arrays={**kept.arrays, **times})
                kept = _say(given, effort, kept, concept, "said_controls", groups, held, signs)
    return kept


def _how_well(told: _Told, some: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    precise, apart = (float(np.mean([one[at] for at in some])) for one in (told.precise, told.apart))
    return precise, apart


def _written(given: Given, held: Precisions) -> Precisions:
    """The norm of what holding a neuron writes around its mean on text, in either direction."""
    reference = neuron_reference(given.model, given.states[NeuronMeans.name], "text")
    norms = output_norms(given.model)
    mean = reference.mean.values["neurons"].double().numpy(force=True)
    return np.stack([abs(sign * one - mean) * norms for sign, one in zip(SIGNS, held, strict=True)])


def _medians(some: Sequence[Example], found: np.ndarray, concept: str) -> Precisions:
    rows = [i for i, one in enumerate(some) if one.concept == concept and one.half == HALVES[0]]
    return np.median(found[rows].astype(np.float32), axis=0)


def _say(
    given: Given,
    effort: Effort,
    kept: Kept,
    concept: str,
    what: str,
    groups: Sequence[Sequence[Neuron]],
    held: Precisions,
    signs: Sequence[int],
) -> Kept:
    """Keep in which texts the concept is mentioned, `[way, prompt]`, each way with these neurons held; once."""
    name = f"{concept}/{what}"
    if name in kept.arrays:
        return kept
    count = given.tally(len(groups), f"ways to force {concept}")
    rows = np.zeros((len(groups), len(PROMPTS)), dtype=np.int8)
    for row, members in zip(rows, groups, strict=True):
        # a group without members is the model as it is
        values = {
            (layer, neuron): float(SIGNS[sign] * held[sign, layer, neuron])
            for (layer, neuron), sign in zip(members, signs, strict=False)
        }
        row[:] = mentions(texts(given.model, values, tokens=effort.tokens, seed=given.seed), concept)
        count()
    arrays = {**kept.arrays, name: rows, f"{name}_neurons": np.array(groups[-1], dtype=np.int64)}
    kept = replace(kept, arrays=arrays)
    given.save(kept)
    return kept
