"""One call of a model: what is to happen to the activations as they pass.

A call holds handlers by place. A handler sees an activation and the slice of queries it covers, and returns nothing
(it watched) or a tensor (it edited). Editing, recording and instruments are all handlers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from innerworks.sites import INPUTS

Handler = Callable[[Tensor, slice], Tensor | None]
Place = tuple[str, int]  # kind of activation, layer
EVERY = slice(None)
INSIDE_ATTENTION = ("q", "k", "v", "scores", "pattern")
OVER_KEYS = ("k", "v")  # their positions are those of the keys, which a cache makes more than the queries

_CURRENT: ContextVar["Call | None"] = ContextVar("innerworks_call", default=None)


def current() -> "Call | None":
    """Return the call that is running in this thread or task, if any."""
    return _CURRENT.get()


@dataclass
class Positions:
    """Which tokens the activations stand for: position ids of the whole text so far, and how many of them are behind us.

    In a plain run that is the whole text, and nothing is behind. In a run of a suffix, or while text is generated with a
    cache, queries cover only what comes after `offset`, keys cover everything.
    """

    ids: Int[Tensor, "batch total"]
    offset: int = 0
    growing: bool = False  # text is being generated, so positions that are not there yet may come
    real: Bool[Tensor, "batch total"] | None = None  # False at padding, which no edit is about

    @classmethod
    def of(cls, mask: Bool[Tensor, "batch seq"]) -> "Positions":
        """Positions of padded texts: each counts from its first real token."""
        return cls(ids=position_ids(mask), real=mask)


def position_ids(mask: Bool[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Each text's positions counted from its first real token; padding in front is given 0."""
    return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)


class Call:
    """Handlers by place, and which places have fired."""

    def __init__(self, positions: Positions) -> None:
        self.positions = positions
        self._handlers: dict[Place, list[tuple[Handler, bool]]] = defaultdict(list)
        self._inputs: dict[int, list[tuple[str, int | None, Handler]]] = defaultdict(list)
        self.read: dict[int, list[tuple[str, int | None, Tensor]]] = {}  # layer -> q, k, v of heads whose input was edited
        self.fired: set[Place] = set()

    def add(self, kind: str, layer: int, handler: Handler, *, head: int | None = None, edits: bool = False) -> None:
        """Handle the activation `kind` of `layer`; handlers run in the order in which they were added."""
        if kind in INPUTS:
            self._inputs[layer].append((kind, head, handler))
        else:
            self._handlers[kind, layer].append((handler, edits))

    @property
    def places(self) -> list[Place]:
        """Every place that something is wanted of."""
        return [*self._handlers, *{(kind, layer): None for layer, wanted in self._inputs.items() for kind, _, _ in wanted}]

    def wants(self, kind: str, layer: int) -> bool:
        """Is anything to happen at this place?"""
        return (kind, layer) in self._handlers

    def inputs(self, layer: int) -> list[tuple[str, int | None, Handler]]:
        """Edits of what heads of a layer read: kind, head (None: every head) and handler."""
        return self._inputs.get(layer, [])

    def opens(self, layer: int) -> bool:
        """Must the attention of this layer be opened up?"""
        return layer in self._inputs or any(self.wants(kind, layer) for kind in INSIDE_ATTENTION)

    @property
    def opens_attention(self) -> bool:
        """Must the attention of any layer be opened up?"""
        return bool(self._inputs) or any(kind in INSIDE_ATTENTION for kind, _ in self._handlers)

    def at(self, kind: str, layer: int, activation: Tensor, queries: slice = EVERY, *, only_edits: bool = False) -> Tensor:
        """Run the handlers of a place on its activation and return what the model should go on with."""
        for handler, edits in self._handlers.get((kind, layer), ()):
            if edits or not only_edits:
                edited = handler(activation, queries)
                activation = activation if edited is None else edited
        self.fired.add((kind, layer))
        return activation

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make this the current call."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)


class Capture(Call):
    """A second call of one block's attention on an altered stream, to learn the q, k and v it would have computed."""

    def __init__(self, parent: Call) -> None:
        super().__init__(parent.positions)
        self.parent = parent
        self.captured: dict[str, Tensor] = {}  # q, k, v [batch, head, seq, d_head], one per query head
