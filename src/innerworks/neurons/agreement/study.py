"""Agreement neurons as a study of a scan: which neurons is the right number of the verb owed to, and lost without?

1. Discovery templates choose up to 20 neurons by their contribution, confirmation templates test them (`measure.py`).
2. The strongest labels are ablated exactly on confirmation templates, each against 20 matched neurons, then together against 20
   matched groups.
3. What the necessary ones cost ordinary text is measured on the beginnings of confirmation documents.

Finlayson et al. 2021, arXiv:2106.06087; Ferrando et al. 2023, arXiv:2305.12535. What it does not do: ask for anything but the
number of English verbs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from innerworks.errors import TextError, UnsupportedModel, UsageError
from innerworks.findings import Finding
from innerworks.model import Mean, Model
from innerworks.model.harms import changes
from innerworks.model.losses import document_losses
from innerworks.model.observe import Instrument
from innerworks.model.prompts import answer_loss, difference
from innerworks.model.study import Given, Kept, Units
from innerworks.neurons.agreement import decide
from innerworks.neurons.agreement.measure import Side, contributions, sides
from innerworks.neurons.groups import matched_groups, times_as_much
from innerworks.neurons.lacking import lacking
from innerworks.neurons.means import NeuronMeans, neuron_reference, reference_of
from innerworks.neurons.necessity import Neuron, packed, tried, unpacked, without
from innerworks.stats import CONSTANTS, Array, Half, estimate
from innerworks.text import Reading, TextBatch
from innerworks.text.openings import openings
from innerworks.text.reading import batch_of

HALVES: tuple[Half, Half] = ("discovery", "confirmation")
CANDIDATES = 20
TOKENS = 48  # of each document, where harm elsewhere is measured
DOCUMENTS = 2  # of each domain


@dataclass(frozen=True, kw_only=True)
class Effort:
    """prompts: of each template. ablated: labels, the strongest first. together: also as a group, and rung 3."""

    prompts: int
    ablated: int
    together: bool = True


EFFORTS = {
    "quick": Effort(prompts=2, ablated=0, together=False),
    "standard": Effort(prompts=2, ablated=8),
    "full": Effort(prompts=6, ablated=20),
}


class Agreement:
    """Which neurons keep verbs in agreement with their subjects?"""

    name = "neuron_agreement"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """The means that ablations put in a neuron's place on ordinary text."""
        return [] if lacking(model) else [NeuronMeans()]

    def measure(self, given: Given) -> Kept:
        """Contributions, then ablations, alone and together; goes on from `given.saved`."""
        why = lacking(given.model)
        if why:
            return Kept(about={"not measured": why})
        effort = EFFORTS[given.depth]
        try:
            asked = sides(given.model, effort.prompts)
            of = reference_of(given.model, [one for one, _ in asked["discovery"].parts], over="discovery prompts")
        except (TextError, UsageError, UnsupportedModel) as error:
            return Kept(about={"not measured": str(error)})
        kept = given.saved or _screened(given, asked, of.mean, of.removed)
        given.save(kept)
        labels = [one.neuron for one in decide.candidates(kept) if one.labelled][: effort.ablated]
        kept = _alone(given, asked["confirmation"], of.mean, labels, kept)
        if effort.together and "joint/harm" not in kept.arrays:
            kept = _together(given, asked["confirmation"], of.mean, labels[: CONSTANTS.joint_members], kept)
        return _elsewhere(given, asked["confirmation"], of.mean, kept) if effort.together else kept

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Contributions, harms and the ceiling."""
        return [*before, *decide.findings(kept)]


def _screened(given: Given, asked: dict[Half, Side], mean: Mean, removed: Array) -> Kept:
    """Contributions on both halves: what is chosen by the one, and how it does on the other."""
    step = given.tally(sum(len(side.parts) for side in asked.values()), "batches of prompts")
    first, second = (contributions(given.model, asked[half], mean, step=step) for half in HALVES)
    there, here = estimate(first, asked["discovery"].strata), estimate(second, asked["confirmation"].strata)
    promising = (there.mean > decide.FLOOR) & (there.mean > CONSTANTS.candidate_t * there.se)
    places = sorted(map(tuple, np.argwhere(promising).tolist()), key=lambda place: -there.mean[place])
    suspects = np.array(places, dtype=np.int64).reshape(-1, 2)
    chosen = suspects[:CANDIDATES]
    arrays = {
        "candidates": chosen,
        "suspects": suspects,
        "contribution": second[:, chosen[:, 0], chosen[:, 1]],
        "mean": here.mean.astype(np.float32),
        "se": here.se.astype(np.float32),
        "removed": removed.astype(np.float32),
    }
    return Kept(arrays=arrays, about={"strata": list(asked["confirmation"].strata), "df": here.df, "seed": given.seed})


def _alone(given: Given, side: Side, mean: Mean, labels: Sequence[Neuron], kept: Kept) -> Kept:
    """Ablate each label, and controls where its harm asks for them; what is done is saved after each."""
    found = unpacked(kept.arrays, "ablation") if "ablation/harm" in kept.arrays else []
    left = [neuron for neuron in labels if neuron not in [one.neuron for one in found]]
    step = given.tally(len(left) * (1 + CONSTANTS.controls), "ablations of agreement neurons")
    for neuron in left:
        found += tried(
            given.model,
            [side.batch],
            mean,
            kept.arrays["removed"].astype(np.float64),
            [neuron],
            _suspects(kept),
            difference(given.model, side.asked),
            side.strata,
            falls=True,
            by_unit=side.by_unit,
            floor=decide.FLOOR,
            step=step,
        )
        kept = _saved(given, replace(kept, arrays={**kept.arrays, **packed(found, "ablation")}))
    return kept


def _together(given: Given, side: Side, mean: Mean, members: Sequence[Neuron], kept: Kept) -> Kept:
    """Ablate the strongest labels at once, and groups of as many others."""
    if len(members) < 2:
        return kept
    groups = matched_groups(members, _suspects(kept), kept.arrays["removed"].astype(np.float64))
    ways = [without(given.model, mean, some) for some in (members, *groups)]
    step = given.tally(len(ways), "ablations of groups")
    fallen = -side.by_unit(changes(given.model, [side.batch], ways, difference(given.model, side.asked), step=step))
    joint = {"joint/neurons": np.array(members, dtype=np.int64), "joint/harm": fallen[0]}
    if groups:
        removed = kept.arrays["removed"].astype(np.float64)
        joint |= {"joint/by_control": fallen[1:], "joint/times_as_much": times_as_much(members, groups, removed)}
    return _saved(given, replace(kept, arrays={**kept.arrays, **joint}))


def _elsewhere(given: Given, side: Side, mean: Mean, kept: Kept) -> Kept:
    """What the necessary neurons cost the verb in nats, and ordinary text."""
    necessary = decide.ablated(kept).necessary
    text = _other_text(given.reading)
    if not necessary or text is None:
        return kept
    model, of_text = given.model, neuron_reference(given.model, given.states[NeuronMeans.name], "text").mean
    step = given.tally(2 * len(necessary), "ablations of necessary neurons")
    here, there = ([without(model, one, [neuron]) for neuron in necessary] for one in (mean, of_text))
    nats = side.by_unit(changes(model, [side.batch], here, answer_loss(model, side.asked), step=step))
    harm = changes(model, [text], there, lambda batch, final: document_losses(model, final, batch), step=step)
    arrays = {"elsewhere/neurons": np.array(necessary, dtype=np.int64), "elsewhere/nats": nats, "elsewhere/harm": harm}
    strata = [given.reading.units[unit].stratum for unit in text.units.tolist()]
    return Kept(arrays={**kept.arrays, **arrays}, about={**kept.about, "elsewhere": strata})


def _other_text(reading: Reading) -> TextBatch | None:
    """The beginnings of a few confirmation documents of each domain; None where that is too few to decide anything."""
    some = openings(reading, "confirmation", tokens=TOKENS).values()
    least = -(-CONSTANTS.least_units // max(len(some), 1))
    windows = [window for domain in some for window in domain[: max(DOCUMENTS, least)]]
    return batch_of(windows, "text", "", "confirmation") if len(windows) >= CONSTANTS.least_units else None


def _suspects(kept: Kept) -> set[Neuron]:
    return {(layer, neuron) for layer, neuron in kept.arrays["suspects"].tolist()}


def _saved(given: Given, kept: Kept) -> Kept:
    given.save(kept)
    return kept
