"""Figures as the page holds them: what plotly needs, as JSON that the script draws when it comes into view."""

import json
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from innerworks.show import numbers, verdicts
from innerworks.show.figures import families
from innerworks.show.figures import heads as figures
from innerworks.show.measures import MATERIALS, MEASURES, word
from innerworks.show.verdicts import Kindred


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure to be drawn when it comes into view."""

    name: str
    title: str  # above it
    says: str  # for those who cannot see it
    data: Markup
    height: int
    width: int  # the least width at which it can be read; narrower screens scroll


def embedded(data: Any) -> Markup:
    """Return JSON that is harmless inside a script element, whatever the strings in it."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def drawn(name: str, figure: go.Figure, *, title: str, says: str, width: int) -> Figure:
    """A figure, ready for the page."""
    data = embedded(str(figure.to_json()))
    return Figure(name=name, title=title, says=says, data=data, height=int(figure.layout["height"] or 400), width=width)


def effects_of(one: Kindred) -> tuple[tuple[Figure, ...], tuple[Figure, ...]]:
    """One figure per measure and material: those that labels rest on and those of ablations, then the others."""
    scores = [score for head in one.heads for score in (*head.seen, *head.causal)]
    scores += [score for group in one.groups for score in group.causal]
    if one.is_family:
        scores = [score for head in one.heads for score in head.deciding]
    first = {score.series: score for score in reversed(scores)}
    decides = {series for head in one.heads[:1] for series in head.decides}
    result: tuple[list[Figure], list[Figure]] = [], []
    for measure, material in sorted(first, key=_place):
        some = first[measure, material]
        floor = f"limit {numbers.rounded(some.bound)}" if measure == "collateral" else f"floor {numbers.constant(some.floor)}"
        counted = f", n\u00a0=\u00a0{some.n}" if some.n > 1 else ""
        title = f"{word(measure)}, {word(material)} ({floor}{counted})"
        name = f"{one.behaviour.name}-{measure}-{material}"
        says = f"{title}: effects of the labelled {one.part[1]} with 95 % intervals; the same numbers are in the table."
        if one.is_family:
            figure = families.best_of_each(one.verdicts, one.behaviour.name, measure=measure, material=material)
        else:
            figure = figures.effects(one.verdicts, one.behaviour.name, material=material, measure=measure)
        width = 360 if one.is_family else 280
        beside = (measure, material) not in decides and not some.about.tries
        result[beside].append(drawn(name, figure, title=title[0].upper() + title[1:], says=says, width=width))
    return tuple(result[0]), tuple(result[1])


def _place(series: verdicts.Series) -> tuple[int, ...]:
    """In the order of the tables of measures and materials, unknown ones last."""
    orders = list(MEASURES), list(MATERIALS)
    return tuple(order.index(name) if name in order else len(order) for name, order in zip(series, orders, strict=True))
