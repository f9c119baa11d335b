"""The same for a terminal: what one head does, and what a scan found, as things that rich can print.

>>> from rich import print                        # doctest: +SKIP
>>> print(page.head_page(atlas, "L10H7"))         # doctest: +SKIP
"""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from innerworks.atlas import Atlas, Example
from innerworks.errors import UnknownSite
from innerworks.show import numbers, verdicts
from innerworks.show.behaviours import RUNGS, behaviour_of, word
from innerworks.show.examples import strongest
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Head, Verdict
from innerworks.sites import Site, head_site

_RUNG_MARKS = {0: "·", 1: "○", 2: "◉", 3: "●"}
_RUNG_STYLES = {0: "dim", 1: "", 2: "bold cyan", 3: "bold green"}


# --- the whole scan ----------------------------------------------------------------------------------------------


def summary(atlas: Atlas) -> RenderableType:
    """What was found: the headline, and the number of labels by behaviour and rung, with the strongest heads."""
    found = verdicts.verdicts(atlas.findings)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("looked for")
    for rung in (1, 2, 3):
        table.add_column(RUNGS[rung], justify="right")
    table.add_column("strongest")
    for verdict in found:
        table.add_row(*_counts(verdict))
    missing = [_not_found(verdict) for verdict in found if not verdict.labels]
    return Group(Text(verdicts.headline(found), style="bold"), table, *missing)


def _counts(verdict: Verdict) -> tuple[str | Text, ...]:
    style = "dim" if verdict.behaviour.quiet or not verdict.labels else ""
    causal = [str(verdict.at_least(rung)) if verdict.tried else numbers.NOTHING for rung in (2, 3)]
    marks = " ".join(f"{_RUNG_MARKS[head.rung]} {head.site}" for head in verdict.labels[:4])
    words = (verdict.behaviour.title, str(verdict.at_least(1)), *causal, marks)
    return tuple(Text(part, style=style) for part in words)


def _not_found(verdict: Verdict) -> Text:
    text = f"{verdicts.sentence(verdict)} {verdicts.would_have_been_found(verdict)}"
    return Text(text, style="dim")


# --- one head ----------------------------------------------------------------------------------------------------


def head_page(atlas: Atlas, site: str | Site) -> RenderableType:
    """What is known of one head: its labels, every score against its null, what ablating it did, and an example.

    Raises UnknownSite for what is no head of this model.
    """
    found = verdicts.verdicts(atlas.findings)
    name = _known_head(found, Site.parse(site))
    measured = [head for verdict in found for head in verdict.heads if head.site == name]
    examples = [one for one in atlas.examples if one.site == name]
    parts: list[RenderableType] = [Text(name, style="bold"), *_labels(measured), _scores(measured)]
    parts += [_ablations(head) for head in measured if head.causal]
    return Group(*parts, *(_example(one) for one in examples))


def _known_head(found: Sequence[Verdict], site: Site) -> str:
    known = {head.site: head for verdict in found for head in verdict.heads}
    if site.layer is None or site.head is None:
        raise UnknownSite(f"{site} is not an attention head, and this atlas only has pages for heads, such as L3H0.")
    name = head_site(site.layer, site.head)
    if name not in known:
        layers = 1 + max((head.layer or 0 for head in known.values()), default=0)
        heads = 1 + max((head.index or 0 for head in known.values()), default=0)
        raise UnknownSite(
            f"There is no {name} in this atlas: the model has {layers} layers of {heads} heads, "
            f"L0H0 to {head_site(layers - 1, heads - 1)} (both count from zero)."
        )
    return name


def _labels(measured: Sequence[Head]) -> list[Text]:
    """One line per label, the highest rung first."""
    labels = sorted((head for head in measured if head.rung), key=lambda head: -head.rung)
    lines = []
    for head in labels:
        behaviour = behaviour_of(head.behaviour)
        line = Text.assemble(
            (f"{_RUNG_MARKS[head.rung]} {behaviour.title}", _RUNG_STYLES[head.rung] or "bold"),
            f"  rung {head.rung}: {RUNGS[head.rung]}{f' ({head.note})' if head.note else ''}",
            (f"  {behaviour.says}", "dim"),
        )
        lines.append(line)
    return lines or [Text("No label: it was measured for everything below, and nothing passed.", style="dim")]


def _table(title: str, columns: Sequence[str], words: int) -> Table:
    """A table whose first columns (so many) hold words, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < words else "right", no_wrap=i >= words)
    return table


def _scores(measured: Sequence[Head]) -> Table:
    """Every score against its null. Cells with brackets or foreign words are `Text`: rich does not interpret it."""
    units = {material: score.n for head in measured for material, score in head.attention.items()}
    title = "Attention (n = " + ", ".join(f"{n} on {word(material)}" for material, n in units.items()) + ")"
    table = _table(title, ("behaviour", "on", "score", "null", "effect [95 %]", "floor", "q"), words=2)
    for head in measured:
        for score in head.seen:
            across = "" if score.measure == "attention" else f", {word(score.measure).removeprefix('attention, ')}"
            table.add_row(
                Text(behaviour_of(head.behaviour).title + across),
                Text(score.material),
                numbers.number(score.value),
                numbers.number(score.null),
                Text(numbers.estimate(score.effect, score.low, score.high)),
                numbers.constant(score.floor),
                numbers.q_value(score.q),
                style=_RUNG_STYLES[head.rung],
            )
    return table


def _ablations(head: Head) -> Group:
    """What ablating one head did to one behaviour."""
    title = f"Ablated: {behaviour_of(head.behaviour).title}"
    table = _table(title, ("without it", "on", "harm", "controls", "effect [95 %]", "limit", "q"), words=2)
    notes = []
    for score in head.causal:
        table.add_row(
            Text(word(score.measure)),
            Text(score.material),
            numbers.rounded(score.raw),
            numbers.rounded(score.compared),
            Text(numbers.estimate(score.effect, score.low, score.high)),
            numbers.rounded(score.bound),
            numbers.q_value(score.q),
        )
        notes.append(
            Text(f"  {word(score.measure)}, in {score.unit}, n = {score.n}{f'; {score.note}' if score.note else ''}", "dim")
        )
    return Group(table, *notes)


def _example(example: Example) -> Group:
    """The text of an example, tokens that look hardest in bold, and where they look."""
    links = strongest(example)
    looking = {link.query_position for link in links}
    text = Text("  ")
    for position, token in enumerate(example.tokens):
        text.append(visible(token), style="bold" if position in looking else "dim")
        text.append(" ")
    title = Text(f"{behaviour_of(example.behaviour).title}, on {example.unit}", style="bold")
    lines = [
        Text.assemble("  ", (link.query, "bold"), " looks at ", (link.key, "bold"), f"  {link.probability:.2f}") for link in links
    ]
    return Group(title, text, *lines)
