"""What the page says: an atlas turned into sections, tables and figures, ready for the template. No HTML here."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup, escape

from innerworks.atlas import Atlas, Example, schema
from innerworks.errors import AtlasError
from innerworks.show import facts, ledger, numbers, verdicts
from innerworks.show.behaviours import Behaviour
from innerworks.show.examples import Link, at_query
from innerworks.show.figures import (
    composition,
    domains,
    families,
    geometry,
    neuron_outputs,
    sinks,
    streaming,
    suppression,
    syntax,
)
from innerworks.show.figures import heads as figures
from innerworks.show.ledger import Entry
from innerworks.show.measures import word
from innerworks.show.report import provenance, tables
from innerworks.show.report.drawing import Figure, drawn, effects_of, embedded
from innerworks.show.report.embedded import embedded as embedded_heads
from innerworks.show.report.neurons import Neurons, neurons_of
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Kindred

EXAMPLES_SHOWN = 4
PAIRS_DRAWN = 4  # series of facts with a figure of their own


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A further figure of a section.

    draw: takes the table of findings and, where `arrays` names a study, what that study kept (`{name: array}`) and what it says
    of that. A figure without data is left out, and so is one whose arrays an atlas does not hold.
    """

    title: str
    says: str  # for those who cannot see it
    draw: Callable[..., go.Figure]
    arrays: str = ""
    width: int = 280  # pixels: the least at which it can be read


#: behaviour, family or chapter of facts -> further figures of its section. To plug one in is one line.
FIGURES: dict[str, tuple[Drawing, ...]] = {
    "syntactic": (
        Drawing(
            title="The best head of each relation against the best fixed offset",
            says="Accuracy of the head that was best on discovery, with intervals, and of the best fixed offset, by relation.",
            draw=syntax.relations,
        ),
    ),
    "prediction": (
        Drawing(
            title="Which kinds of neuron stand in which layers",
            says="Share of each layer's neurons that raise a few tokens, lower a few, or divide the vocabulary.",
            draw=neuron_outputs.kinds_by_layer,
        ),
    ),
    "domain": (
        Drawing(
            title="What losing each tested head costs every domain",
            says="Harm in nats per token by head and domain, with 95 % intervals over documents.",
            draw=domains.harm_by_domain,
        ),
    ),
    "copy_suppression": (
        Drawing(
            title="Does the head that comes nearest look at what is about to be predicted?",
            says="Mean attention to a token of the text, by the probability that the logit lens gives it there.",
            draw=suppression.of_nearest,
            arrays="suppression",
        ),
        Drawing(
            title="And does it lower it?",
            says="Single looks of the same head: attention, and the effect on the logit of the token looked at.",
            draw=suppression.lowering_of_nearest,
            arrays="suppression",
        ),
        Drawing(
            title="Does the model know how often it is right, with it and without?",
            says="Share of right answers less the probability given to them, by that probability, with and without the head.",
            draw=suppression.reliability_of_nearest,
            arrays="suppression",
        ),
    ),
    "composition": (
        Drawing(
            title="What induction heads lose without each previous-token head",
            says="Attention lost, with intervals, when a head's output is taken from an induction head's keys or queries alone.",
            draw=lambda findings, arrays, about: composition.falls(findings, arrays),
            arrays="composition",
            width=640,
        ),
        Drawing(
            title="Who feeds whom",
            says="What each induction head loses without what an earlier head wrote in its keys.",
            draw=lambda findings, arrays, about: composition.who_feeds_whom(findings, arrays),
            arrays="composition",
        ),
    ),
    "attention_sink": (
        Drawing(
            title="Resting on the first token against what is read there",
            says="Attention on the first token and relative length of the value there, for every head.",
            draw=sinks.value_norms,
        ),
    ),
    "massive_activation": (
        Drawing(
            title="The stream at the first token, by layer",
            says="Length of the stream at the first token over that elsewhere, by layer.",
            draw=sinks.stream_norms,
        ),
    ),
    "rogue_dimension": (
        Drawing(
            title="Dimensions that stick out, by layer",
            says="Robust z of the size of the largest dimensions on ordinary tokens, by layer, with that of random directions.",
            draw=geometry.sizes_by_layer,
            arrays="geometry",
            width=420,
        ),
    ),
    "anisotropy": (
        Drawing(
            title="How alike tokens of different documents are, by layer",
            says="Mean cosine by layer: as they are, without rogue dimensions, and with the mean taken off.",
            draw=geometry.cosines_by_layer,
            width=420,
        ),
    ),
    "streaming": (
        Drawing(
            title="How far text generated past the window strays",
            says="Divergence in nats from the model with everything in view, by tokens generated.",
            draw=lambda findings, arrays, about: streaming.divergence_by_token(arrays),
            arrays="streaming",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An example: a pattern as a picture, where its query looks, and what the head writes there."""

    figure: Figure
    site: str
    unit: str
    links: tuple[Link, ...]
    writes: bool
    raised: tuple[str, ...]
    lowered: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One behaviour, or one family of them, that was found."""

    verdict: Kindred
    behaviour: Behaviour
    sentence: str
    effects: tuple[Figure, ...]  # what labels rest on, and what ablations did
    beside: tuple[Figure, ...]  # what else was scored
    further: tuple[Figure, ...]  # plugged in
    examples: tuple[Shown, ...]
    labels: tables.Table
    causal: tables.Table | None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is no label: sinks that give way, how heads work together."""

    behaviour: Behaviour
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]
    table: tables.Table


@dataclass(frozen=True, kw_only=True)
class Absent:
    """One behaviour that was looked for and not found."""

    behaviour: Behaviour
    sentence: str
    limits: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page."""

    model: str
    headline: str
    kind: str
    read: str
    map: Figure
    sections: tuple[Section, ...]
    told: tuple[Told, ...]
    absent: tuple[Absent, ...]
    causal: bool  # was anything ablated?
    every: Markup  # all heads, as JSON for the script
    pattern: Markup  # the figure of an example, still empty
    behaviours: tuple[Behaviour, ...]
    heads: int
    neurons: Neurons | None  # where any were measured
    ledger: tuple[Entry, ...]
    ledger_headline: str
    settings: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    certificate: tuple[tuple[str, str, str, bool], ...]


def content(atlas: Atlas) -> Page:
    """Gather the page from an atlas."""
    found = verdicts.verdicts(atlas.findings)
    told = verdicts.kindred(found)
    examples = atlas.examples
    return Page(
        model=str(atlas.manifest.get("model", {}).get("name", atlas.path.name)),
        headline=verdicts.headline(found),
        kind=verdicts.kind_of_model(atlas),
        read=verdicts.what_was_read(atlas),
        map=_map(found),
        sections=tuple(_section(atlas, one, examples) for one in told if one.labels),
        told=tuple(_told(atlas, one) for chapter in ("heads", "residual") for one in facts.facts(atlas.findings, chapter)),
        absent=tuple(_absent(atlas, one) for one in told if not one.labels),
        causal=any(one.tried for one in told),
        every=embedded(embedded_heads(atlas, found, examples)),
        pattern=embedded(str(figures.pattern(("",), np.zeros((1, 1)), colour="#000000").to_json())),
        behaviours=tuple(one.behaviour for one in told),
        heads=len({head.site for verdict in found for head in verdict.heads}),
        neurons=neurons_of(atlas, lambda name: _further(atlas, name)),
        ledger=tuple(ledger.entries(atlas)),
        ledger_headline=ledger.headline(atlas),
        settings=provenance.settings(atlas.manifest),
        certificate=provenance.certificate(atlas.manifest),
    )


def linked(text: object) -> Markup:
    """Escape a text and make every head and neuron that it names a link to its page."""
    return Markup(re.sub(r"\bL\d+[HN]\d+\b", lambda site: f'<a class="head" href="#{site[0]}">{site[0]}</a>', str(escape(text))))


# --- figures -----------------------------------------------------------------------------------------------------


def _map(found: Sequence[verdicts.Verdict]) -> Figure:
    across = 1 + max((head.index or 0 for verdict in found for head in verdict.heads), default=0)
    figure = figures.map_of_heads(found).update_layout(showlegend=False)
    says = "Map of the heads, layer by head. Every label in it is also in the tables below."
    return drawn("map", figure, title="", says=says, width=max(260, 16 * across + 60))


def _further(atlas: Atlas, name: str) -> tuple[Figure, ...]:
    """The figures that are plugged in for a behaviour, family or chapter."""
    result = []
    for i, drawing in enumerate(FIGURES.get(name, ())):
        given: list[Any] = [atlas.findings]
        if drawing.arrays:
            try:
                given += atlas.arrays(schema.of_study(drawing.arrays))
            except AtlasError:  # this atlas was made without that study
                continue
            if not given[1]:  # it was, but the study could not be asked of this model
                continue
        figure = drawing.draw(*given)
        traces: Any = figure.data
        if any(trace.x is None or len(trace.x) for trace in traces):
            result.append(drawn(f"{name}-further-{i}", figure, title=drawing.title, says=drawing.says, width=drawing.width))
    return tuple(result)


def _examples(one: Kindred, examples: Sequence[Example]) -> tuple[Shown, ...]:
    order = [(head.behaviour, head.site) for head in one.labels]
    own = [(i, example) for i, example in enumerate(examples) if (example.behaviour, example.site) in order]
    own.sort(key=lambda pair: order.index((pair[1].behaviour, pair[1].site)))
    return tuple(_shown(example, i, place, one.behaviour) for place, (i, example) in enumerate(own[:EXAMPLES_SHOWN]))


def _shown(example: Example, number: int, place: int, behaviour: Behaviour) -> Shown:
    """number: among all examples, which the script has already (`embedded.py`)."""
    links = () if behaviour.quiet else tuple(at_query(example))
    figure = Figure(
        name=f"{behaviour.name}-example-{place}",
        title="",
        says=f"Attention pattern of {example.site} on {len(example.tokens)} tokens of {example.unit}.",
        data=embedded({"example": number}),
        height=figures.pattern_height(len(example.tokens)),
        width=max(300, 10 * len(example.tokens) + 90),
    )
    return Shown(
        figure=figure,
        site=example.site,
        unit=example.unit,
        links=links,
        writes=bool(example.raised) and not behaviour.quiet,
        raised=tuple(visible(token) for token, _ in example.raised),
        lowered=tuple(visible(token) for token, _ in example.lowered),
    )


# --- sections ----------------------------------------------------------------------------------------------------


def _section(atlas: Atlas, one: Kindred, examples: Sequence[Example]) -> Section:
    effects, beside = effects_of(one)
    return Section(
        verdict=one,
        behaviour=one.behaviour,
        sentence=verdicts.sentence(one),
        effects=effects,
        beside=beside,
        further=_further(atlas, one.behaviour.name),
        examples=_examples(one, examples),
        labels=tables.labels(one),
        causal=tables.ablations(one),
    )


def _told(atlas: Atlas, one: facts.Facts) -> Told:
    figures_of = []
    for scores in one.series[:PAIRS_DRAWN]:
        first = scores[0]
        figure = families.strongest(one, measure=first.measure, material=first.material, behaviour=first.behaviour)
        title = f"{first.about.title}, {word(first.material)} (floor {numbers.constant(first.floor)})"
        name = f"{one.behaviour.name}-{first.behaviour.replace(':', '-')}-{first.measure}-{first.material}"
        says = f"{title}: the strongest, with 95 % intervals; the same numbers are in the table."
        figures_of.append(drawn(name, figure, title=title[0].upper() + title[1:], says=says, width=320))
    return Told(
        behaviour=one.behaviour,
        sentences=tuple(facts.sentences(one)),
        figures=(*_further(atlas, one.behaviour.name), *figures_of),
        table=tables.told(one),
    )


def _absent(atlas: Atlas, one: Kindred) -> Absent:
    return Absent(
        behaviour=one.behaviour,
        sentence=verdicts.sentence(one),
        limits=verdicts.would_have_been_found(one),
        figures=(*effects_of(one)[0], *_further(atlas, one.behaviour.name)),
    )
