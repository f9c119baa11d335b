"""Which parts of the model gave a token its logit, and how much each? The strongest parts, and what all of them come to."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rich.console import Console, ConsoleOptions, RenderableType

from innerworks.show import numbers
from innerworks.show.prompt import page, terminal
from innerworks.show.tokens import visible


@dataclass(frozen=True, kw_only=True)
class Named:
    """A token that shares are of, and what the model itself says of it."""

    id: int
    text: str
    logit: float  # before any soft cap
    probability: float
    rank: int  # 1 for the likeliest


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one part gave, in logits."""

    component: str
    site: str
    value: float
    source: int | None = None  # the position of the token that was read, where parts are split by it


@dataclass(frozen=True, kw_only=True)
class Kind:
    """All parts of one kind together."""

    component: str
    parts: int
    value: float


@dataclass(frozen=True, kw_only=True)
class PromptShares:
    """The shares of a logit, or of a difference between two. In a notebook it shows itself; `rich.print` prints it."""

    model: str
    tokens: tuple[str, ...]  # of the prompt; the logits are those after the last one
    by: str  # what was split: component, head, neuron, source
    answer: Named
    foil: Named | None
    parts: tuple[Share, ...]  # the strongest, whatever their sign
    kinds: tuple[Kind, ...]  # all parts, by kind, in the model's order
    exact: float  # the model's own logit (difference), before any soft cap

    @property
    def all_parts(self) -> int:
        """How many parts there are."""
        return sum(kind.parts for kind in self.kinds)

    @property
    def total(self) -> float:
        """What all parts come to, in logits."""
        return sum(kind.value for kind in self.kinds)

    @property
    def rest(self) -> float:
        """What the parts come to that are not listed."""
        return self.total - sum(part.value for part in self.parts)

    @property
    def largest(self) -> float:
        """The size of the strongest share: what bars are drawn against."""
        return max((abs(part.value) for part in self.parts), default=0.0) or 1.0

    @property
    def question(self) -> str:
        """What the shares are of, in words."""
        answer = visible(self.answer.text)
        return f"the logit of {answer}" if self.foil is None else f"the logit of {answer} less that of {visible(self.foil.text)}"

    def sums(self) -> tuple[str, ...]:
        """How the shares add up, in words."""
        left = self.all_parts - len(self.parts)
        listed = sum(part.value for part in self.parts)
        strongest = f"The {len(self.parts):,} strongest parts come to {numbers.signed(listed)}"
        others = f", the other {left:,} to {numbers.signed(self.rest)}" if left else ""
        missed = f"the shares miss it by {numbers.small(abs(self.total - self.exact))} logits"
        return (
            f"{strongest}{others}: {numbers.signed(self.total)} in all.",
            f"The model's own (before any soft cap): {numbers.signed(self.exact)}; {missed}.",
        )

    def source_of(self, part: Share) -> str:
        """The token that a part read, with its position."""
        return "" if part.source is None else f"{visible(self.tokens[part.source])} ({part.source})"

    def as_dict(self) -> dict[str, object]:
        """Plain data."""
        return {**asdict(self), "total": self.total, "rest": self.rest, "all_parts": self.all_parts}

    def _repr_html_(self) -> str:
        return page.fragment("shares.html", self)

    def html(self) -> str:
        """One page that stands alone."""
        return page.document(f"{self.question} · {self.model}", self._repr_html_())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield from terminal.shares(self, options.max_width)
