"""The same for a terminal: what one head does, and what a scan found, as things that rich can print.

>>> from rich import print                        # doctest: +SKIP
>>> print(page.head_page(atlas, "L10H7"))         # doctest: +SKIP
"""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from innerworks.atlas import Atlas, Example
from innerworks.show import numbers, verdicts
from innerworks.show.behaviours import RUNGS, behaviour_of, in_order
from innerworks.show.examples import at_query
from innerworks.show.facts import Facts, facts, sentences
from innerworks.show.head import HeadPage, Partner, page_of, subject
from innerworks.show.measures import QUESTIONS, word
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Head, Kindred, Score, Verdict
from innerworks.sites import Site

_RUNG_MARKS = {0: "·", 1: "○", 2: "◉", 3: "●"}
_RUNG_STYLES = {0: "dim", 1: "", 2: "bold cyan", 3: "bold green"}
PARTNERS_SHOWN = 12
LEGEND = (
    f"✓ this row is above its floor by its test; a label needs that of all rows of its kind, and q ≤ .05 ({numbers.NOTHING}: no "
    "candidate). Effects are scores less their nulls, with 95 % intervals."
)


# --- the whole scan ----------------------------------------------------------------------------------------------


def summary(atlas: Atlas) -> RenderableType:
    """What was found: the headline, and the number of labels by behaviour and rung, with the strongest heads."""
    found = verdicts.verdicts(atlas.findings)
    of_neurons = verdicts.verdicts(atlas.findings, "neurons")
    parts = _found(verdicts.headline(found), found, facts(atlas.findings)) if found else []
    if of_neurons:
        said = verdicts.headline_of_neurons(of_neurons, atlas.neurons.height)
        parts += [Text(), *_found(said, of_neurons, facts(atlas.findings, "neurons"))]
    of_stream = facts(atlas.findings, "residual")
    if of_stream:
        parts += [Text(), Text("The residual stream", style="bold"), *map(_told, of_stream)]
    return Group(*parts)


def _found(headline: str, found: Sequence[Verdict], told: Sequence[Facts]) -> list[RenderableType]:
    """What was found of the parts of one sort."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("looked for")
    for rung in (1, 2, 3):
        table.add_column(RUNGS[rung], justify="right")
    table.add_column("strongest")
    families = verdicts.kindred(found)
    for one in families:
        table.add_row(*_counts(one))
    missing = [_not_found(one) for one in families if not one.labels]
    return [Text(headline, style="bold"), table, *missing, *map(_told, told)]


def _counts(one: Kindred) -> tuple[str | Text, ...]:
    style = "dim" if one.behaviour.quiet or not one.labels else ""
    parts = {rung: len({head.site for head in one.labels if head.rung >= rung}) for rung in (1, 2, 3)}
    causal = [str(parts[rung]) if one.tried else numbers.NOTHING for rung in (2, 3)]
    marks = " ".join(_mark(head, named=one.is_family) for head in one.labels[: 3 if one.is_family else 4])
    words = (one.behaviour.title, str(parts[1]), *causal, marks)
    return tuple(Text(part, style=style) for part in words)


def _mark(head: Head, *, named: bool) -> str:
    member = f" {head.behaviour.partition(':')[2]}" if named else ""
    return f"{_RUNG_MARKS[head.rung]} {head.site}{member}"


def _not_found(one: Kindred) -> Text:
    text = f"{verdicts.sentence(one)} {verdicts.would_have_been_found(one)}"
    return Text(text, style="dim")


def _told(told: Facts) -> Group:
    title = Text(f"{told.behaviour.title[0].upper()}{told.behaviour.title[1:]}", style="bold")
    return Group(title, *(Text(f"  {sentence}") for sentence in sentences(told)))


# --- one head ----------------------------------------------------------------------------------------------------


def head_page(atlas: Atlas, site: str | Site) -> RenderableType:
    """What is known of one head: its labels, and by question every score against its null, with examples and partners.

    Raises UnknownSite for what is no head of this model.
    """
    page = page_of(atlas, site)
    place = f"  head {page.index} of {page.heads} in layer {page.layer} of {page.layers} (both counted from zero)"
    labels = labels_in_words(page.labels, page.nearest)
    parts: list[RenderableType] = [Text.assemble((page.site, "bold"), (place, "dim")), *labels]
    parts += [*_question("looks"), *map(_looks, page.examples), *_scores(page, "looks")]
    parts += [*_question("writes"), *_written(page.examples), *_scores(page, "writes")]
    parts += [*_question("breaks"), *_scores(page, "breaks")]
    parts += [*_question("partners"), *_partners(page.partners)]
    if page.of_layer:
        parts += [Text(), Text(f"Its layer, L{page.layer}", style="bold underline"), table_of(page.of_layer, page.labels)]
    left = [f"{page.left_out[family.name]} {family.title}" for family in in_order(list(page.left_out))]
    parts += [Text(f"Not listed, below half of their floors: {', '.join(left)}.", style="dim")] if left else []
    return Group(*parts, Text(LEGEND, style="dim"))


def labels_in_words(labels: Sequence[Head], near: Head | None) -> list[Text]:
    """One line per label of a head or neuron, the highest rung first; without any, what came nearest to one."""
    lines = [_label(head) for head in labels]
    if lines:
        return lines
    said = f" Nearest: {near.title}, at {near.strength:.0%} of its floor." if near is not None and near.strength > 0 else ""
    return [Text(f"No label: it was measured for everything below, and nothing passed.{said}", style="dim")]


def _label(head: Head) -> Text:
    behaviour = behaviour_of(head.behaviour)
    return Text.assemble(
        (f"{_RUNG_MARKS[head.rung]} {behaviour.title}", _RUNG_STYLES[head.rung] or "bold"),
        f"  rung {head.rung}: {RUNGS[head.rung]}{f' ({head.note})' if head.note else ''}",
        (f"  {behaviour.says}", "dim"),
    )


def _question(question: str) -> list[Text]:
    return [Text(), Text(QUESTIONS[question], style="bold underline")]


def _scores(page: HeadPage, question: str) -> list[RenderableType]:
    scores = page.scores.get(question, ())
    nothing = "It was not ablated in this scan." if question == "breaks" else "Nothing was measured."
    return [table_of(scores, page.labels)] if scores else [Text(f"  {nothing}", style="dim")]


def table_of(scores: Sequence[Score], labels: Sequence[Head]) -> Table:
    """Every score against its null. Cells with brackets or foreign words are `Text`: rich does not interpret it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    titles = ("", "measured", "on", "score", "null", "effect [95 %]", "floor", "q", "n")
    for i, title in enumerate(titles):
        table.add_column(title, justify="left" if i < 3 else "right", no_wrap=i >= 3 and i != 5, min_width=15 if i == 1 else None)
    rungs = {head.behaviour: head.rung for head in labels}
    for score in scores:
        unit = "" if score.unit in ("probability", "") else f" {score.unit}"
        table.add_row(
            "✓" if score.stands_out else "",
            Text(subject(score)),
            Text(word(score.material)),
            numbers.rounded(score.raw),
            numbers.rounded(score.compared),
            Text(numbers.estimate(score.effect, score.low, score.high) + unit),
            f"≤ {numbers.rounded(score.bound)}" if score.measure == "collateral" else numbers.constant(score.bound),
            numbers.q_value(score.q),
            str(score.n),
            style=_RUNG_STYLES[rungs[score.behaviour]] if score.behaviour in rungs else "" if score.stands_out else "dim",
        )
    return table


def _partners(partners: Sequence[Partner]) -> list[Text]:
    if not partners:
        return [Text("  None that was measured.", style="dim")]
    lines = [_partner(one) for one in partners[:PARTNERS_SHOWN]]
    more = len(partners) - len(lines)
    return lines + ([Text(f"  and {more} weaker ones", style="dim")] if more > 0 else [])


def _partner(one: Partner) -> Text:
    score = one.score
    effect = f"{numbers.estimate(score.effect, score.low, score.high)} {score.unit}"
    kind = (
        ""
        if behaviour_of(score.behaviour).told or behaviour_of(score.behaviour).family
        else f", {behaviour_of(score.behaviour).title}"
    )
    before, _, after = one.says.partition("{}")
    return Text.assemble(
        "  ✓ " if score.stands_out else "    ",
        before,
        (one.other, "bold"),
        after,
        (f"  {effect}{kind} (floor {numbers.constant(score.floor)}, {word(score.material)})", "dim"),
    )


def _looks(example: Example) -> Padding:
    """The text of an example: the token that looks, and in bold where it looks."""
    links = at_query(example)
    marked = {link.key_position for link in links} | {link.query_position for link in links}
    text = Text()
    for position, token in enumerate(example.tokens):
        style = "reverse" if position == example.query else "bold" if position in marked else "dim"
        text.append(visible(token), style=style)
        text.append(" ")
    title = Text.assemble((behaviour_of(example.behaviour).title, "bold"), (f", on {example.unit}", "dim"))
    lines = [Text.assemble((link.query, "bold"), " looks at ", (link.key, "bold"), f"  {link.probability:.2f}") for link in links]
    return Padding(Group(title, text, *lines), (0, 0, 1, 2))


def _written(examples: Sequence[Example]) -> list[Padding]:
    """What it writes in its examples, and by its weights."""
    parts = []
    for example in examples:
        lines = []
        if example.query is not None and example.raised:
            at = f"{visible(example.tokens[example.query])} ({behaviour_of(example.behaviour).title})"
            lines.append(Text.assemble("at ", (at, "bold"), " it raises ", *changed(example.raised)))
            lines.append(Text.assemble("  and lowers ", *changed(example.lowered)))
        if example.rows:
            pairs = ", ".join(f"{visible(read)} → {visible(token)}" for read, token, _ in example.rows)
            verb = "lowers" if example.rows[0][2] < 0 else "raises"
            lines.append(Text(f"by its weights, reading a token {verb} most: {pairs}"))
        parts += [Padding(Group(*lines), (0, 0, 0, 2))] if lines else []
    return parts


def changed(tokens: Sequence[tuple[str, float]]) -> list[Text]:
    """Tokens with by how much their logits are changed."""
    return [
        Text.assemble((visible(token), "bold"), (f" {'+' if logit > 0 else ''}{numbers.rounded(logit)}  ", "dim"))
        for token, logit in tokens
    ]
