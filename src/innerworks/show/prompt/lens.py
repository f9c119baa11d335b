"""Which token would each layer name at each position of a prompt? Rows are layers, columns positions."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rich.console import Console, ConsoleOptions, RenderableType

from innerworks.show.prompt import page, terminal


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A token that a layer would name."""

    id: int
    text: str
    probability: float
    logit: float


@dataclass(frozen=True, kw_only=True)
class Place:
    """What one layer would name at one position, likeliest first, and how undecided it is."""

    guesses: tuple[Guess, ...]
    entropy: float  # in nats: 0 where all is on one token, log(vocab) where all are alike


@dataclass(frozen=True, kw_only=True)
class PromptLens:
    """A lens over a prompt. In a notebook it shows itself; `rich.print` prints it; `as_dict` is for machines."""

    model: str
    lens: str  # logit lens, or tuned lens
    tokens: tuple[str, ...]  # of the prompt
    sites: tuple[str, ...]  # the streams that were read, the first layer first
    places: tuple[tuple[Place, ...], ...]  # by site, then by token
    shown: int = 1  # guesses in each cell; the others are told where the mouse rests
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[tuple[str, tuple[Place, ...]]]:
        """Layers as they are shown: the last one on top, as in the papers."""
        return list(reversed(list(zip(self.sites, self.places, strict=True))))

    def says(self, position: int) -> int:
        """The token that the last layer that was read names at a position."""
        return self.places[-1][position].guesses[0].id

    def as_dict(self) -> dict[str, object]:
        """Plain data: one entry per site and position."""
        cells = [
            {"site": site, "position": position, **asdict(place)}
            for site, row in zip(self.sites, self.places, strict=True)
            for position, place in enumerate(row)
        ]
        return {"model": self.model, "lens": self.lens, "tokens": list(self.tokens), "places": cells, "notes": list(self.notes)}

    def _repr_html_(self) -> str:
        return page.fragment("lens.html", self)

    def html(self) -> str:
        """One page that stands alone."""
        return page.document(f"{self.lens} · {self.model}", self._repr_html_())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield from terminal.lens(self, options.max_width)
