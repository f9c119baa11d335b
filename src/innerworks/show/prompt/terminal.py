"""A prompt's figure in a terminal of any width: positions that do not fit stand in further blocks below."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from innerworks.show import numbers
from innerworks.show.prompt.page import percent
from innerworks.show.tokens import visible

if TYPE_CHECKING:
    from innerworks.show.prompt.lens import Place, PromptLens
    from innerworks.show.prompt.shares import Named, PromptShares

LONGEST = 12  # columns of a token
BAR = 12  # columns of a bar of each sign; half of it where it is narrow
LEVELS = ((0.8, "bold green"), (0.5, "green"), (0.2, "cyan"), (0.05, ""))  # from this probability on; below, dim
GAP = 2


# --- the lens ----------------------------------------------------------------------------------------------------


def lens(one: "PromptLens", width: int) -> Iterator[RenderableType]:
    """As many positions side by side as fit, the last layer on top."""
    yield Text.assemble((f"{one.lens.capitalize()} of {one.model}", "bold"), f", {_streams(one)}: what each layer would say next")
    widest = [
        max(cell_len(visible(g.text, longest=LONGEST)) for row in one.places for g in row[i].guesses[: one.shown])
        for i in range(len(one.tokens))
    ]
    columns = [max(token + 10, cell_len(_head(one, i))) for i, token in enumerate(widest)]
    label = max(len(_layer(site)) for site in one.sites)
    for block in _blocks(columns, width - label):
        yield Text()
        yield _block(one, block, widest, label)
    yield Text()
    yield _legend()
    yield from (Text(note, style="dim") for note in one.notes)


def _streams(one: "PromptLens") -> str:
    return one.sites[0].partition(".")[2]


def _layer(site: str) -> str:
    return site.partition(".")[0]


def _head(one: "PromptLens", position: int) -> str:
    return f"{position} {visible(one.tokens[position], longest=LONGEST)}"


def _blocks(columns: list[int], width: int) -> Iterator[range]:
    """Stretches of positions that fit side by side; at least one in each."""
    start, used = 0, 0
    for i, column in enumerate(columns):
        if i > start and used + column + GAP > width:
            yield range(start, i)
            start, used = i, 0
        used += column + GAP
    yield range(start, len(columns))


def _block(one: "PromptLens", positions: range, widest: list[int], label: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), collapse_padding=True)
    table.add_column("", no_wrap=True, width=label, style="dim")
    for i in positions:
        table.add_column(Text(_head(one, i), style="bold"), no_wrap=True)
    for site, row in one.rows:
        table.add_row(_layer(site), *(_cell(row[i], widest[i], one.says(i), one.shown) for i in positions))
    return table


def _cell(place: "Place", widest: int, final: int, shown: int) -> Text:
    """Tokens with their probabilities, a line each; behind the first the entropy."""
    cell = Text()
    for rank, guess in enumerate(place.guesses[:shown]):
        style = next((style for least, style in LEVELS if guess.probability >= least), "dim")
        token = visible(guess.text, longest=LONGEST)
        cell.append("\n" if rank else "")
        cell.append(token, style=f"{style} underline" if guess.id == final else style)
        cell.append(" " * (widest - cell_len(token)))
        cell.append(f" {percent(guess.probability):>4}", style=style)
        cell.append("" if rank else f" {place.entropy:4.1f}", style="dim")
    return cell


def _legend() -> Text:
    colours = [(f" {least:.0%} ", style) for least, style in reversed(LEVELS)]
    return Text.assemble(
        ("token, probability, entropy in nats. Colour, from", "dim"),
        *colours,
        ("on; ", "dim"),
        ("underlined", "underline dim"),
        (": what the top row says.", "dim"),
    )


# --- shares ------------------------------------------------------------------------------------------------------


def shares(one: "PromptShares", width: int) -> Iterator[RenderableType]:
    """The strongest parts with a bar each, what each kind comes to, and how all of it adds up."""
    yield Text.assemble((f"What gave {one.question}", "bold"), f" in {one.model}?")
    for name, named in (("answer", one.answer), ("foil", one.foil)):
        if named is not None:
            yield Text(f"{name:<6} {_named(named)}")
    yield Text()
    yield _parts(one, width)
    yield Text()
    yield _kinds(one)
    yield Text()
    yield from (Text(line) for line in one.sums())


def _named(named: "Named") -> str:
    return f"{visible(named.text)}  logit {named.logit:.2f}, probability {percent(named.probability)}, rank {named.rank:,}"


def _parts(one: "PromptShares", width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    told, drawn = width >= 80, width >= 60  # what stands in the narrowest terminal is what cannot be left out
    table.add_column("part", no_wrap=True)
    if told:
        table.add_column("kind")
    if one.by == "source":
        table.add_column("reads", no_wrap=True)
    table.add_column("logits", justify="right", no_wrap=True)
    size = BAR if told else BAR // 2
    if drawn:
        table.add_column("lowers and raises" if told else "", no_wrap=True)
    for part in one.parts:
        cells = [Text(part.site), *([Text(part.component.replace("_", " "))] if told else [])]
        cells += [Text(one.source_of(part))] if one.by == "source" else []
        cells += [Text(numbers.signed(part.value), style="green" if part.value > 0 else "red")]
        cells += [_bar(part.value / one.largest, size)] if drawn else []
        table.add_row(*cells)
    return table


def _bar(share: float, size: int) -> Text:
    """A bar to the left or to the right of the middle."""
    length = max(1, round(abs(share) * size))
    if share < 0:
        return Text.assemble(" " * (size - length), ("█" * length, "red"))
    return Text.assemble(" " * size, ("█" * length, "green"))


def _kinds(one: "PromptShares") -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("together", "parts", "logits"):
        table.add_column(Text(title, style="dim"), justify="left" if title == "together" else "right", no_wrap=True)
    for kind in one.kinds:
        table.add_row(kind.component.replace("_", " "), f"{kind.parts:,}", numbers.signed(kind.value))
    return table
