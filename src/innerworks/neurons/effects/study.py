"""Does anything depend on the neurons that respond to something? Rungs 2 and 3 for their labels, as a study of a scan.

All this was fixed before any label was ablated:

1. *Metric*: the loss of the next token where the neuron's family is on (`families.py`; chosen by the sums of discovery). Of a
   position neuron: in the range of positions where it is furthest from its mean. Token before: behind those common tokens that
   move it most. Alphabet: at tokens with the letter that moves it most. Token class: at tokens of its class. Token neuron: at the
   common tokens that move it most. Token detector: at its triggers.
2. *Text*: the beginnings of 24 documents of each half at `standard`, 32 tokens each, taken in turn from the domains; the unit is
   the document. A label is asked where its family is on in 12 of them in each half, at a token with a next one.
3. *Screen* on discovery, by gradients (`screen.py`): the 4 most promising labels of a kind are tried at `standard`, 20 at `full`,
   none at `quick`.
4. *Alone* (`ablate.py`): the neuron at its mean over discovery text. *Jointly*: the 8 most promising labels of the kind together,
   since few single neurons cost .02 nats; the metric is the loss where any of their families is on.
5. *Controls*: 20 neurons of the neighbouring layers that remove as much, or 20 groups of such, none with a label of any of these
   kinds and none a candidate. They are run only where the harm itself exceeds the floor over documents, at `standard` for the 2
   neurons, or groups, with the largest of such harms.
6. Rung 2: harm beyond controls by .02 nats per token; Benjamini-Hochberg over all tries, alone and jointly, of all kinds.
   Rung 3: the rise of the loss where the family is off is little (`stats.selectivity`).

What it does not do: raise single labels by a joint trial, which says that predictions depend on some of the group, not on which.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.model.matched import nearest
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units, units_of
from innerworks.neurons.effects import decide
from innerworks.neurons.effects.ablate import Way, rises
from innerworks.neurons.effects.families import FAMILIES, Family, families_of
from innerworks.neurons.effects.screen import documents_on, screened
from innerworks.neurons.groups import Group, matched_groups
from innerworks.neurons.inputs import Inputs
from innerworks.neurons.inputs.design import Design
from innerworks.neurons.lacking import lacking
from innerworks.neurons.means import NeuronMeans, NeuronReference, neuron_reference
from innerworks.neurons.necessity import Neuron
from innerworks.stats import CONSTANTS, Half
from innerworks.text import Reading, TextBatch
from innerworks.text.openings import openings
from innerworks.text.reading import BATCH, batch_of

HALVES: tuple[Half, Half] = ("discovery", "confirmation")
Texts = dict[Half, list[TextBatch]]

LEAST_CONTROLS = 2  # without which nothing can be said of a spread


@dataclass(frozen=True, kw_only=True)
class Effort:
    """documents: of each half; tokens: of each. alone: labels of a kind. controlled: how many, the most harmful first."""

    documents: int
    tokens: int
    alone: int
    controlled: int


EFFORTS = {
    "standard": Effort(documents=24, tokens=32, alone=4, controlled=2),
    "full": Effort(documents=80, tokens=128, alone=20, controlled=1000),
}


class Effects:
    """Which labelled neurons do predictions depend on?"""

    name = "neuron_necessity"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """What says where families are on, and the means that ablations put in a neuron's place."""
        return [] if lacking(model) else [Inputs(model), NeuronMeans()]

    def measure(self, given: Given) -> Kept:
        """Screen, ablate, then ablate controls; goes on from `given.saved`."""
        effort = EFFORTS.get(given.depth)
        if effort is None or lacking(given.model):
            return Kept(about={"not measured": lacking(given.model) or "no neuron is ablated at this depth"})
        design = Design.of(given.model.tokenizer, given.reading, vocab=given.model.anatomy.vocab)
        texts: Texts = {half: beginnings(given.reading, half, effort) for half in HALVES}
        families = _decidable(families_of(given, design), texts, design)
        if not families:
            least = CONSTANTS.least_units
            return Kept(about={"not measured": f"no label whose family is on in {least} beginnings of documents of each half"})
        of = neuron_reference(given.model, given.states[NeuronMeans.name], "text")
        kept = given.saved or _tried(given, effort, texts, families, design, of)
        given.save(kept)
        return _controlled(given, effort, texts["confirmation"], families, design, of, kept)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """The rows before, their rungs raised where that is earned, and the harms."""
        return decide.findings(kept, units, before)


def beginnings(reading: Reading, half: Half, effort: Effort) -> list[TextBatch]:
    """The beginnings of so many documents of a half, one of each domain in turn."""
    in_turn = zip_longest(*openings(reading, half, tokens=effort.tokens).values())
    some = [window for turn in in_turn for window in turn if window is not None][: effort.documents]
    return [batch_of(some[start : start + BATCH], "text", "", half) for start in range(0, len(some), BATCH)]


def _decidable(families: Sequence[Family], texts: Texts, design: Design) -> list[Family]:
    """Those that are on in documents enough of each half."""
    least = np.min([documents_on(texts[half], families, design) for half in HALVES], axis=0)
    return [one for one, documents in zip(families, least, strict=True) if documents >= CONSTANTS.least_units]


def _tried(
    given: Given,
    effort: Effort,
    texts: Texts,
    families: Sequence[Family],
    design: Design,
    of: NeuronReference,
) -> Kept:
    """Screen on discovery, ablate what is most promising on confirmation."""
    step = given.tally(len(texts["discovery"]), "batches screened")
    slope = screened(given.model, texts["discovery"], of.mean, families, design, step=step)
    ways = [way for kind in FAMILIES for way in _ways(kind, families, slope, effort)]
    batches = texts["confirmation"]
    step = given.tally(len(ways) * len(batches), "ablations of labelled neurons")
    found = rises(given.model, batches, of.mean, ways, design, step=step)
    trials = [
        {"behaviour": way.families[0].behaviour, "neurons": [list(one) for one in way.neurons], "says": _said(way)}
        for way in ways
    ]
    arrays = {
        "harm": found.on,
        "elsewhere": found.off,
        "units": np.concatenate([batch.units.numpy(force=True) for batch in batches]),
        "removed": of.removed.astype(np.float32),
    }
    return Kept(arrays=arrays, about={"trials": trials, "tokens": effort.tokens, "seed": given.seed})


def _ways(kind: str, families: Sequence[Family], slope: np.ndarray, effort: Effort) -> list[Way]:
    """What is ablated for a kind: its most promising labels, one by one, and the strongest of them together."""
    mine = sorted((-slope[i], one.neuron, one) for i, one in enumerate(families) if one.behaviour == kind)
    ordered = [one for *_, one in mine]
    alone = [Way(neurons=(one.neuron,), families=(one,)) for one in ordered[: effort.alone]]
    group = tuple(ordered[: CONSTANTS.joint_members])
    return alone + ([Way(neurons=tuple(one.neuron for one in group), families=group)] if len(group) > 1 else [])


def _said(way: Way) -> str:
    return way.families[0].says if len(way.families) == 1 else "the family of any of them is on"


def _controlled(
    given: Given,
    effort: Effort,
    batches: Sequence[TextBatch],
    families: Sequence[Family],
    design: Design,
    of: NeuronReference,
    kept: Kept,
) -> Kept:
    """Ablate 20 matched neurons, or groups, for each of the largest harms; what is done is saved after each."""
    by_label = {(one.behaviour, one.neuron): one for one in families}
    trials, suspects = decide.trials_of(kept, units_of(given.reading)), _suspects(given.before)
    chosen = decide.worth_controls(trials)[: effort.controlled]
    step = given.tally(sum(map(len, chosen)) * CONSTANTS.controls * len(batches), "ablations of controls")
    for numbers in chosen:
        neurons = trials[numbers[0]].neurons
        groups = _controls(neurons, suspects, of)
        if trials[numbers[0]].controls or len(groups) < LEAST_CONTROLS:
            continue
        asked = [tuple(by_label[trials[number].behaviour, neuron] for neuron in neurons) for number in numbers]
        ways = [Way(neurons=group, families=some) for group in groups for some in asked]
        found = rises(given.model, batches, of.mean, ways, design, step=step)
        arrays = dict(kept.arrays)
        for i, number in enumerate(numbers):
            arrays[f"controls/{number}"] = np.array(groups, dtype=np.int64)
            arrays[f"by_control/{number}"] = found.on[i :: len(numbers)]
            arrays[f"elsewhere_by_control/{number}"] = found.off[i :: len(numbers)]
        kept = replace(kept, arrays=arrays)
        given.save(kept)
    return kept


def _controls(neurons: tuple[Neuron, ...], suspects: set[Neuron], of: NeuronReference) -> list[Group]:
    if len(neurons) == 1:
        return [(one,) for one in nearest(neurons, suspects, of.removed)]
    return matched_groups(neurons, suspects, of.removed)


def _suspects(before: Sequence[Finding]) -> set[Neuron]:
    """Labels and candidates of these kinds: nobody's controls."""
    some = (one for one in before if one.behaviour in FAMILIES)
    return {(one.layer, one.index) for one in some if one.layer is not None and one.index is not None}
