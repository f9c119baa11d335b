"""Knowledge neurons as a study of a scan: do a few neurons carry a fact, however it is asked for?

1. Of our facts (`facts.py`), those that this model knows (`known.py`), a few of each relation.
2. Integrated gradients after the discovery prompts; a fact's neurons are what most of these have in common.
3. On the held-out ways of asking, at the last token: they are silenced and doubled. Beside that, 20 matched groups (each member
   beside a neuron that writes as much there), the facts of other relations, and agreement prompts, dealt to the ways in turn.

Dai et al. 2022, arXiv:2104.08696; that such edits also move grammar: Niu et al. 2024, arXiv:2405.02421. What it does not do: tell
where knowledge is stored; the answer may be owed to neurons that only pass on what others recalled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from innerworks.errors import TextError, UnsupportedModel, UsageError
from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.model.matched import Place
from innerworks.model.observe import Instrument
from innerworks.model.prompts import Prompt, agreeing, prompts_of
from innerworks.model.study import Given, Kept, Units
from innerworks.neurons.groups import Group, matched_groups, times_as_much
from innerworks.neurons.knowledge import decide
from innerworks.neurons.knowledge.facts import WAYS, Fact, facts
from innerworks.neurons.knowledge.gradients import integrated_gradients
from innerworks.neurons.knowledge.known import known
from innerworks.neurons.knowledge.move import DOUBLED, SILENT, Question, moved
from innerworks.neurons.knowledge.refine import output_norms, overlap, shared_neurons, sizes
from innerworks.neurons.lacking import lacking
from innerworks.stats import CONSTANTS

#: suppression or amplification; own, others, agreement or a control group's number; fact; number of the way to ask
Key = tuple[str, str | int, int, int]

FACTORS = {"suppression": SILENT, "amplification": DOUBLED}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """asked: facts of which it is asked whether the model knows them. facts: taken of those. steps: of the integral."""

    asked: int
    facts: int
    steps: int


EFFORTS = {"standard": Effort(asked=40, facts=14, steps=10), "full": Effort(asked=120, facts=80, steps=20)}


class Knowledge:
    """Do a few neurons carry a fact?"""

    name = "neuron_knowledge"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """Nothing: facts are asked for in prompts of their own."""
        return []

    def measure(self, given: Given) -> Kept:
        """Find each fact's neurons, then silence and double them; goes on from `given.saved`."""
        effort, why = EFFORTS.get(given.depth), lacking(given.model)
        if effort is None or why:
            return Kept(about={"not measured": why or f"{given.depth} has no time for integrated gradients"})
        try:
            some = known(given.model, facts(given.model.tokenizer)[: effort.asked])[: effort.facts]
            grammar = _one_each([one for one in prompts_of(given.model, "agreement", agreeing) if one.half == "confirmation"])
            norms = output_norms([given.model.weights.W_out(layer) for layer in range(given.model.anatomy.layers)])
        except (TextError, UsageError, UnsupportedModel) as error:
            return Kept(about={"not measured": str(error)})
        if not decide.enough([one.relation for one in some]):
            return _too_few(some, "it knows in both halves of the ways to ask")
        kept = given.saved or _found(given, some, effort, norms)
        given.save(kept)
        having = [some[number] for number in decide.having(kept)]
        if not decide.enough([one.relation for one in having]):
            return _too_few(having, "has neurons that most ways to ask share")
        return _moved(given, some, grammar, kept)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """What became of answers, and which neurons they are owed to."""
        return [*before, *decide.findings(kept)]


def _too_few(some: Sequence[Fact], which: str) -> Kept:
    least = -(-CONSTANTS.least_units // WAYS)
    there = f"{len(some)} of our facts, of {len({one.relation for one in some})} relations, {which}"
    return Kept(
        about={"not measured": f"{there}; facts of {least} relations are the least: each, asked in {WAYS} ways, is {WAYS} units"}
    )


def _found(given: Given, some: Sequence[Fact], effort: Effort, norms: torch.Tensor) -> Kept:
    """The neurons of each fact, how large their attributions are, and the groups they are compared with."""
    asked = [(number, tokens) for number, fact in enumerate(some) for tokens in fact.prompts["discovery"]]
    found = integrated_gradients(
        given.model,
        [tokens for _, tokens in asked],
        [some[number].answer for number, _ in asked],
        steps=effort.steps,
        step=given.tally(len(asked), "prompts attributed"),
    )
    numbers = torch.tensor([number for number, _ in asked])
    members, strength, written, alike = [], [], [], []
    for number in range(len(some)):
        rows = numbers == number
        places = shared_neurons(found.probability[rows])
        members += [(number, *place) for place in places]
        strength += [float(found.probability[rows][:, layer, neuron].mean()) for layer, neuron in places]
        written.append(sizes(found.activation[rows], norms).numpy())
        alike.append(overlap(places, shared_neurons(found.nats[rows])))
    suspects = {(layer, neuron) for _, layer, neuron in members}
    having = [(places, written[number]) for number in range(len(some)) if (places := _places(members, number))]
    groups = [matched_groups(places, suspects, size) for places, size in having]
    count = min((len(one) for one in groups), default=0)
    flat = [[group[i] for group in one[:count]] for one in groups if count for i in range(len(one[0]))]
    arrays = {
        "members": np.array(members, dtype=np.int64).reshape(-1, 3),
        "strength": np.array(strength, dtype=np.float64),
        "controls": np.array(flat, dtype=np.int64).reshape(len(members), count, 2),
    }
    if count:
        ratios = [times_as_much(places, one[:count], size) for (places, size), one in zip(having, groups, strict=True)]
        arrays["times_as_much"] = np.mean(ratios, axis=0)
    names = {"facts": [one.name for one in some], "relations": [one.relation for one in some]}
    about = {**names, "steps": effort.steps, "alike in nats": float(np.mean(alike))}
    return Kept(arrays=arrays, about=about)


def _places(members: Sequence[tuple[int, int, int]], number: int) -> list[Place]:
    return [(layer, neuron) for at, layer, neuron in members if at == number]


def _moved(given: Given, some: Sequence[Fact], grammar: Sequence[Prompt], kept: Kept) -> Kept:
    """Silence and double the neurons of each fact: on its own prompts, those of others, and agreement; and control groups."""
    having = decide.having(kept)
    asked = [pair for number in having for pair in _questions(some, number, grammar, kept)]
    before, after = moved(given.model, [one for _, one in asked], step=given.tally(len(asked), "last tokens"))
    rises: dict[Key, list[float]] = {}
    for (key, _), rise in zip(asked, after - before, strict=True):
        # right verb forms may rise or fall, and both are a change of grammar
        rises.setdefault(key, []).append(abs(float(rise)) if key[1] == "agreement" else float(rise))

    def by_way(name: str, whom: str | int) -> list[list[float]]:
        return [[float(np.mean(rises[name, whom, fact, way])) for way in range(WAYS)] for fact in having]

    arrays: dict[str, np.ndarray] = {}
    for name in FACTORS:
        for whom in ("own", "others", "agreement"):
            arrays[f"{name}/{whom}"] = np.array(by_way(name, whom))
        if groups := kept.arrays["controls"].shape[1]:
            arrays[f"{name}/controls"] = np.array([by_way(name, k) for k in range(groups)])
        own = [i for i, (key, _) in enumerate(asked) if key[:2] == (name, "own")]
        arrays[f"{name}/share"] = np.array([np.exp(after[own]).sum() / np.exp(before[own]).sum() - 1])
    return replace(kept, arrays={**kept.arrays, **arrays})


def _questions(some: Sequence[Fact], number: int, grammar: Sequence[Prompt], kept: Kept) -> Iterator[tuple[Key, Question]]:
    """Everything that is asked about one fact's neurons, and what it counts for."""
    rows, fact = kept.arrays["members"][:, 0] == number, some[number]
    neurons = _group(kept.arrays["members"][rows, 1:])
    others = [some[other] for other in decide.having(kept) if some[other].relation != fact.relation]
    groups = [_group(one) for one in kept.arrays["controls"][rows].swapaxes(0, 1)]
    wanted = [
        *(("own", way, tokens, (fact.answer,), neurons) for way, tokens in _ways(fact)),
        *((k, way, tokens, (fact.answer,), group) for k, group in enumerate(groups) for way, tokens in _ways(fact)),
        *(("others", way, tokens, (other.answer,), neurons) for other in others for way, tokens in _ways(other)),
        *(("agreement", i % WAYS, one.tokens, one.answers, neurons) for i, one in enumerate(grammar)),
    ]
    for name, factor in FACTORS.items():
        for whom, way, tokens, answers, group in wanted:
            yield (name, whom, number, way), Question(tokens=tokens, answers=answers, neurons=group, factor=factor)


def _ways(fact: Fact) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The held-out prompts of a fact, with the number of the way to ask."""
    return enumerate(fact.prompts["confirmation"])


def _group(places: np.ndarray) -> Group:
    return tuple((layer, neuron) for layer, neuron in places.tolist())


def _one_each(grammar: Sequence[Prompt]) -> list[Prompt]:
    """One agreement prompt of each template, subjects of either number in turn."""
    by_unit: dict[str, list[Prompt]] = {}
    for one in grammar:
        by_unit.setdefault(one.unit, []).append(one)
    return [some[i % 2] for i, some in enumerate(by_unit.values())]
