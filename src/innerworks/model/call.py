"""One call of a model: what is to happen to the activations as they pass.

A call holds handlers by place. A handler sees an activation and the slice of queries it covers, and returns nothing
(it watched) or a tensor (it edited). Editing, recording and instruments are all handlers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

Handler = Callable[[Tensor, slice], Tensor | None]
EVERY = slice(None)
INSIDE_ATTENTION = ("q", "k", "v", "pattern")

_CURRENT: ContextVar["Call | None"] = ContextVar("innerworks_call", default=None)


def current() -> "Call | None":
    """Return the call that is running in this thread or task, if any."""
    return _CURRENT.get()


class Call:
    """Handlers by place, and which places have fired."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, int], list[Handler]] = defaultdict(list)
        self.fired: set[tuple[str, int]] = set()

    def add(self, kind: str, layer: int, handler: Handler) -> None:
        """Handle the activation `kind` of `layer`; handlers run in the order in which they were added."""
        self._handlers[kind, layer].append(handler)

    @property
    def places(self) -> list[tuple[str, int]]:
        """Every place that something is wanted of."""
        return list(self._handlers)

    def wants(self, kind: str, layer: int) -> bool:
        """Is anything to happen at this place?"""
        return (kind, layer) in self._handlers

    def opens(self, layer: int) -> bool:
        """Must the attention of this layer be opened up?"""
        return any(self.wants(kind, layer) for kind in INSIDE_ATTENTION)

    @property
    def opens_attention(self) -> bool:
        """Must the attention of any layer be opened up?"""
        return any(kind in INSIDE_ATTENTION for kind, _ in self._handlers)

    def at(self, kind: str, layer: int, activation: Tensor, queries: slice = EVERY) -> Tensor:
        """Run the handlers of a place on its activation and return what the model should go on with."""
        for handler in self._handlers.get((kind, layer), ()):
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
