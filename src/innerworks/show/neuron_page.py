"""One feed-forward neuron in a terminal: what it responds to, where it is strongest, what it writes, what breaks without it.

>>> from rich import print                                  # doctest: +SKIP
>>> print(neuron_page.neuron_page(atlas, "L11N584"))        # doctest: +SKIP
"""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from innerworks.atlas import Atlas, Context, NeuronExample
from innerworks.show import numbers
from innerworks.show.behaviours import in_order
from innerworks.show.neuron import FAMILIES, QUESTIONS, NeuronPage, neuron_page_of
from innerworks.show.page import LEGEND, changed, labels_in_words, table_of
from innerworks.show.tokens import visible
from innerworks.sites import Site

LEAST = 5e-4  # of the variance: less is nothing
NOTHING = {
    "looks": "It came near to no kind, so that none was tested.",
    "writes": "What it writes was not tested for a kind.",
    "breaks": "It was not ablated in this scan.",
}


def neuron_page(atlas: Atlas, site: str | Site) -> RenderableType:
    """What is known of one neuron. Raises UnknownSite for what is none of this model."""
    page = neuron_page_of(atlas, site)
    place = f"  neuron {page.index} of {page.neurons} in layer {page.layer} of {page.layers} (both counted from zero)"
    parts: list[RenderableType] = [Text.assemble((page.site, "bold"), (place, "dim"))]
    parts += [Text(f"{page.says}.")] if page.says else []
    parts += [*labels_in_words(page.labels, page.nearest), *_numbers(page)]
    for question, asked in QUESTIONS.items():
        parts += [Text(), Text(asked, style="bold underline"), *_beside(question, page), *_scores(page, question)]
    left = [f"{page.left_out[family.name]} {family.title}" for family in in_order(list(page.left_out))]
    parts += [Text(f"Not listed, below half of their floors: {', '.join(left)}.", style="dim")] if left else []
    return Group(*parts, Text(LEGEND, style="dim"))


def _numbers(page: NeuronPage) -> list[Text]:
    """How large its activation gets, how often it is above zero, how much it writes."""
    of = page.numbers
    if not of:
        return []
    said = [f"largest activation {numbers.rounded(of['largest'])}", f"above zero on {100 * of['active']:.0f} % of tokens"]
    said += [f"one standard deviation of it writes a norm of {numbers.rounded(of['writes'])}"] if of["writes"] is not None else []
    return [Text(f"{', '.join(said)}.".capitalize(), style="dim")]


def _beside(question: str, page: NeuronPage) -> list[RenderableType]:
    """What stands beside the scores of a question: shares of variance and contexts, or the tokens that it writes."""
    if question == "looks":
        return [*_explained(page), *(_context(one) for one in (page.example.contexts if page.example else ()))]
    if question == "writes" and page.example is not None and page.example.raised:
        return [_written(page.example)]
    return []


def _explained(page: NeuronPage) -> list[Text]:
    shares = [
        f"{FAMILIES.get(name, name)} {numbers.number(100 * share, 1)} %" for name, share in page.explained if share >= LEAST
    ]
    return [Text(f"  of its variance, beyond all else: {', '.join(shares)}", style="dim")] if shares else []


def _context(context: Context) -> Padding:
    """The text around a place where it is strong; the token itself is marked."""
    text = Text()
    for position, token in enumerate(context.tokens):
        text.append(visible(token), style="reverse" if position == context.at else "")
        text.append(" ")
    where = f"{numbers.rounded(context.value)}  at token {context.position} of {context.unit}"
    return Padding(Group(Text(where, style="dim"), text), (0, 0, 0, 2))


def _written(example: NeuronExample) -> Padding:
    side = "where it is strongest" if example.side > 0 else "where it is strongest (below zero)"
    raised = Text.assemble(f"{side} it raises ", *changed(example.raised))
    return Padding(Group(raised, Text.assemble("  and lowers ", *changed(example.lowered))), (0, 0, 0, 2))


def _scores(page: NeuronPage, question: str) -> Sequence[RenderableType]:
    scores = page.scores[question]
    return [table_of(scores, page.labels)] if scores else [Text(f"  {NOTHING[question]}", style="dim")]
