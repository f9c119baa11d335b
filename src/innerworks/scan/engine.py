"""The engine: runs any set of instruments over a reading, one pass, the discovery half before the other.

Every layer's activations are handed to the instruments as they pass and dropped; no logits are computed. States can be
saved and taken up again after any batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from innerworks.errors import BrokenModel
from innerworks.model import Model
from innerworks.model.call import Handler
from innerworks.model.observe import Instrument, State
from innerworks.model.run import Watch
from innerworks.sites import KINDS, Site
from innerworks.stats import Half
from innerworks.text import Reading, TextBatch

HALVES: tuple[Half, ...] = ("discovery", "confirmation")


@dataclass(kw_only=True)
class Pass:
    """How far a pass has come: one state per instrument, and the number of batches they hold."""

    states: dict[str, State]
    batches: int = 0
    seconds: float = field(default=0.0, compare=False)


AfterBatch = Callable[[Pass, TextBatch], None]


def begin(model: Model, reading: Reading, instruments: Sequence[Instrument]) -> Pass:
    """An empty pass."""
    return Pass(states={one.name: one.begin(model.anatomy, reading) for one in instruments})


def observe(
    model: Model,
    reading: Reading,
    instruments: Sequence[Instrument],
    progress: Pass,
    *,
    after_batch: AfterBatch = lambda progress, batch: None,
) -> Pass:
    """Go on with a pass to its end: discovery, then confirmation. `after_batch` may save or stop it."""
    batches = [batch for half in HALVES for batch in reading.batches(half)]
    for batch in batches[progress.batches :]:
        observe_batch(model, batch, instruments, progress)
        progress.batches += 1
        after_batch(progress, batch)
    return progress


def observe_batch(model: Model, batch: TextBatch, instruments: Sequence[Instrument], progress: Pass) -> None:
    """Run one batch and let every instrument add what it sees to its state."""
    batch = batch.to(model.device)
    watch: list[Watch] = []
    for one in instruments:
        one.begin_batch(batch)
        sites = [Site.parse(site) for kind in one.kinds for site in model.sites(kind)]
        watch += [(site, _handler(one, progress.states[one.name], batch, site)) for site in sites]
    done = model.run(batch.tokens, mask=batch.mask, watch=watch, logits="none")
    if not bool(done.final[done.mask].isfinite().all()):
        raise BrokenModel(
            f"{model.name} computes NaN or infinity on text of the stratum {batch.stratum!r}: "
            "nothing measured there would mean anything."
        )
    for one in instruments:
        one.end_batch(progress.states[one.name], batch)


def _handler(instrument: Instrument, state: State, batch: TextBatch, site: Site) -> Handler:
    def handle(activation: Tensor, queries: slice) -> None:
        length = activation.shape[KINDS[site.activation][0].index("seq")]
        block = slice(queries.start or 0, length) if queries.stop is None else queries
        instrument.observe(state, batch, site, activation, block)

    return handle
