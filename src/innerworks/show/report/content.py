"""What the page says: an atlas turned into sections, tables and figures, ready for the template. No HTML here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from innerworks.atlas import Atlas, Example
from innerworks.show import ledger, numbers, verdicts
from innerworks.show.behaviours import MEASURES, Behaviour, word
from innerworks.show.examples import Link, strongest
from innerworks.show.figures import heads as figures
from innerworks.show.ledger import Entry
from innerworks.show.report import provenance, tables
from innerworks.show.verdicts import Verdict

EXAMPLES_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure to be drawn when it comes into view."""

    name: str
    title: str  # above it
    says: str  # for those who cannot see it
    data: Markup
    height: int
    width: int  # the least width at which it can be read; narrower screens scroll


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An example: a pattern as a picture, and its strongest links in words."""

    figure: Figure
    site: str
    unit: str
    links: tuple[Link, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One behaviour that was found."""

    verdict: Verdict
    behaviour: Behaviour
    sentence: str
    effects: tuple[Figure, ...]
    examples: tuple[Shown, ...]
    labels: tables.Table
    causal: tables.Table | None


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
    absent: tuple[Absent, ...]
    causal: bool  # was anything ablated?
    every: Markup  # all heads x behaviours, as JSON for the script
    behaviours: tuple[Behaviour, ...]
    heads: int
    ledger: tuple[Entry, ...]
    ledger_headline: str
    settings: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    certificate: tuple[tuple[str, str, str, bool], ...]


def content(atlas: Atlas) -> Page:
    """Gather the page from an atlas."""
    found = verdicts.verdicts(atlas.findings)
    examples = atlas.examples
    return Page(
        model=str(atlas.manifest.get("model", {}).get("name", atlas.path.name)),
        headline=verdicts.headline(found),
        kind=verdicts.kind_of_model(atlas),
        read=verdicts.what_was_read(atlas),
        map=_map(atlas, found),
        sections=tuple(_section(atlas, verdict, examples) for verdict in found if verdict.labels),
        absent=tuple(_absent(atlas, verdict) for verdict in found if not verdict.labels),
        causal=any(verdict.tried for verdict in found),
        every=embedded(tables.every(found)),
        behaviours=tuple(verdict.behaviour for verdict in found),
        heads=len({head.site for verdict in found for head in verdict.heads}),
        ledger=tuple(ledger.entries(atlas)),
        ledger_headline=ledger.headline(atlas),
        settings=provenance.settings(atlas.manifest),
        certificate=provenance.certificate(atlas.manifest),
    )


def embedded(data: Any) -> Markup:
    """Return JSON that is harmless inside a script element, whatever the strings in it."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


# --- figures -----------------------------------------------------------------------------------------------------


def _figure(name: str, figure: go.Figure, *, title: str, says: str, width: int) -> Figure:
    data = embedded(str(figure.to_json()))
    return Figure(name=name, title=title, says=says, data=data, height=int(figure.layout["height"]), width=width)


def _map(atlas: Atlas, found: Sequence[Verdict]) -> Figure:
    across = 1 + max((head.index or 0 for verdict in found for head in verdict.heads), default=0)
    figure = figures.map_of_heads(atlas.heads).update_layout(showlegend=False)
    says = "Map of the heads, layer by head. Every label in it is also in the tables below."
    return _figure("map", figure, title="", says=says, width=max(260, 16 * across + 60))


def _effects(atlas: Atlas, verdict: Verdict) -> tuple[Figure, ...]:
    """One figure per measure and material, in the order in which things are decided."""
    scores = [score for head in verdict.heads for score in (*head.seen, *head.causal)]
    scores += [score for group in verdict.groups for score in group.causal]
    result = []
    for measure in MEASURES:
        for material in dict.fromkeys(score.material for score in scores if score.measure == measure):
            figure = figures.effects(atlas.findings, verdict.behaviour.name, material=material, measure=measure)
            some = next(score for score in scores if (score.measure, score.material) == (measure, material))
            floor = f"limit {numbers.rounded(some.bound)}" if measure == "collateral" else f"floor {numbers.constant(some.floor)}"
            title = f"{word(measure)}, {word(material)} ({floor}, n\u00a0=\u00a0{some.n})"
            name = f"{verdict.behaviour.name}-{measure}-{material}"
            says = f"{title}: effects of the labelled heads with 95 % intervals; the same numbers are in the table."
            result.append(_figure(name, figure, title=title[0].upper() + title[1:], says=says, width=280))
    return tuple(result)


def _examples(verdict: Verdict, examples: Sequence[Example]) -> tuple[Shown, ...]:
    order = [head.site for head in verdict.labels]
    own = [one for one in examples if one.behaviour == verdict.behaviour.name and one.site in order]
    own.sort(key=lambda one: order.index(one.site))
    return tuple(_shown(one, i, verdict.behaviour) for i, one in enumerate(own[:EXAMPLES_SHOWN]))


def _shown(example: Example, place: int, behaviour: Behaviour) -> Shown:
    picture = figures.pattern(example.tokens, example.pattern, colour=behaviour.colour)
    name = f"{behaviour.name}-example-{place}"
    says = f"Attention pattern of {example.site} on {len(example.tokens)} tokens of {example.unit}."
    links = () if behaviour.quiet else tuple(strongest(example))
    figure = _figure(name, picture, title="", says=says, width=max(300, 10 * len(example.tokens) + 90))
    return Shown(figure=figure, site=example.site, unit=example.unit, links=links)


# --- sections ----------------------------------------------------------------------------------------------------


def _section(atlas: Atlas, verdict: Verdict, examples: Sequence[Example]) -> Section:
    return Section(
        verdict=verdict,
        behaviour=verdict.behaviour,
        sentence=verdicts.sentence(verdict),
        effects=_effects(atlas, verdict),
        examples=_examples(verdict, examples),
        labels=tables.labels(verdict),
        causal=tables.ablations(verdict),
    )


def _absent(atlas: Atlas, verdict: Verdict) -> Absent:
    return Absent(
        behaviour=verdict.behaviour,
        sentence=verdicts.sentence(verdict),
        limits=verdicts.would_have_been_found(verdict),
        figures=_effects(atlas, verdict),
    )
