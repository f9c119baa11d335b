"""The chapter on feed-forward neurons, ready for the template: each kind with its verdict, their depth, a table of them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from innerworks.atlas import Atlas
from innerworks.show import facts, numbers, verdicts
from innerworks.show.behaviours import Behaviour
from innerworks.show.facts import Facts
from innerworks.show.figures.neurons import depth
from innerworks.show.report import tables
from innerworks.show.report.drawing import Figure, drawn, effects_of, embedded
from innerworks.show.report.embedded_neurons import embedded_neurons
from innerworks.show.verdicts import Kindred


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of neuron, or one family of kinds, found or not."""

    verdict: Kindred
    behaviour: Behaviour
    sentence: str
    limits: str  # what would have been found
    effects: tuple[Figure, ...]
    further: tuple[Figure, ...]  # plugged in
    labels: tables.Table | None
    causal: tables.Table | None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is told of neurons without being a label."""

    behaviour: Behaviour
    sentences: tuple[str, ...]
    further: tuple[Figure, ...]
    table: tables.Table


@dataclass(frozen=True, kw_only=True)
class Neurons:
    """The chapter."""

    headline: str
    count: str
    depth: Figure | None  # where there are labels
    kinds: tuple[Kind, ...]
    told: tuple[Told, ...]
    left_out: str  # how many neurons are not in the table, if any
    every: Markup  # all neurons, as JSON for the script

    @property
    def shown(self) -> tuple[Behaviour, ...]:
        """The kinds that can be chosen in the table."""
        return tuple(one.behaviour for one in self.kinds if one.verdict.labels)


def neurons_of(atlas: Atlas, further: Callable[[str], tuple[Figure, ...]]) -> Neurons | None:
    """Gather the chapter; None where nothing was measured of neurons. further: the figures plugged in for a kind."""
    found, told = verdicts.verdicts(atlas.findings, "neurons"), facts.facts(atlas.findings, "neurons")
    if not found and not told and atlas.neurons.is_empty():
        return None
    kindred, every = verdicts.kindred(found), embedded_neurons(atlas, found, told)
    return Neurons(
        headline=verdicts.headline_of_neurons(found, atlas.neurons.height),
        count=numbers.count(atlas.neurons.height),
        depth=_depth(kindred, every["layers"]),
        kinds=tuple(_kind(one, further(one.behaviour.name)) for one in sorted(kindred, key=lambda one: not one.labels)),
        told=tuple(_told(one, further(one.behaviour.name)) for one in told),
        left_out=numbers.count(every["left_out"]) if every["left_out"] else "",
        every=embedded(every),
    )


def _depth(found: Sequence[Kindred], layers: int) -> Figure | None:
    if not any(one.labels for one in found):
        return None
    says = "Labelled neurons by kind and layer. Every label in it is also in the tables below."
    return drawn("neurons-depth", depth(found, layers), title="", says=says, width=max(420, 12 * layers + 220))


def _kind(one: Kindred, further: tuple[Figure, ...]) -> Kind:
    return Kind(
        verdict=one,
        behaviour=one.behaviour,
        sentence=verdicts.sentence(one),
        limits=verdicts.would_have_been_found(one),
        effects=effects_of(one)[0] if one.heads else (),
        further=further,
        labels=tables.labels(one) if one.labels else None,
        causal=tables.ablations(one),
    )


def _told(one: Facts, further: tuple[Figure, ...]) -> Told:
    return Told(behaviour=one.behaviour, sentences=tuple(facts.sentences(one)), further=further, table=tables.told(one))
