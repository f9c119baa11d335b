"""Does a head still find its target when it does not read what an earlier head wrote? Removed from its keys, or queries, alone.

1. Generated repeats, a gap of its own in each, are run once as they are. Per sequence, an induction head's *match* is its mean
   attention, over the tokens of the second copy, to what followed the first.
2. What the earlier head (the *sender*) wrote around its discovery mean is subtracted from the stream that the induction head
   (the *receiver*) reads for its keys, and nowhere else: its queries and values, all other heads and layers are as they were.
3. The model's own norm, projection and rotation make keys of that stream, and the match is read off again. Its fall is how much
   the receiver *K-composes* with the sender. The same with queries is the control that says it is keys.

Values cannot matter: a pattern does not depend on them. Elhage et al. 2021 (transformer-circuits.pub/2021/framework); Olsson et
al. 2022, arXiv:2209.11895. What it does not do: remove what layers between the two have made of the sender's output; in
`path_patching.py` feed-forwards take part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.heads import masks
from innerworks.heads.composition.stopping import up_to
from innerworks.heads.composition.written import Sender, Writing
from innerworks.heads.harms import Head
from innerworks.model import Mean, Model
from innerworks.model.edit import Change
from innerworks.sites import Site
from innerworks.stats import Array
from innerworks.text import TextBatch

Reads = Literal["keys", "queries", "values"]
INPUT: dict[Reads, str] = {"keys": "k_in", "queries": "q_in", "values": "v_in"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Repeats that were run once as they are, and where in them an induction head has something to look at."""

    writing: Writing
    targets: Bool[Tensor, "batch seq key"]

    @classmethod
    def of(cls, model: Model, batch: TextBatch, mean: Mean, *, layers: Sequence[int]) -> "Bench":
        """Run a batch once. layers: whose heads may be senders, or stand between sender and receiver."""
        batch = batch.to(model.device)
        record = [Site(layer=layer, kind="z") for layer in layers]
        clean = model.run(batch.tokens, mask=batch.mask, record=record, keep="resume", logits="none")
        targets = masks.induction(batch.tokens, batch.mask)
        used = {} if clean.streams is None else {layer: x for layer, x in clean.streams.items() if layer <= max(layers)}
        clean = replace(clean, streams=used, cache=None)  # nothing above is resumed from
        return cls(writing=Writing(model=model, clean=clean, mean=mean), targets=targets)

    @property
    def model(self) -> Model:
        """The model."""
        return self.writing.model

    def clean_match(self, receiver: Head) -> Array:
        """A receiver's match as it is: a mean probability per sequence."""
        return self._match(receiver, [])

    def without(self, receiver: Head, senders: Sequence[Sender], *, reads: Reads = "keys") -> Array:
        """Its match when it does not read, for its keys (queries, values), what some earlier heads wrote."""
        return self.reading(receiver, self.writing.of(senders), reads=reads)

    def reading(self, receiver: Head, less: Float[Tensor, "batch seq d_model"], *, reads: Reads = "keys") -> Array:
        """Its match when the stream it reads for its keys (queries, values) is less something."""
        layer, head = receiver
        site = Site(layer=layer, head=head, kind=INPUT[reads])
        return self._match(receiver, [Change(site=site, value=-less, how="add", positions="all", says=f"{site} less a part")])

    def instead(self, receiver: Head, stream: Float[Tensor, "batch seq d_model"]) -> Array:
        """Its match when it reads another stream for its keys."""
        layer, head = receiver
        site = Site(layer=layer, head=head, kind="k_in")
        return self._match(receiver, [Change(site=site, value=stream, positions="all", says=f"{site} patched")])

    def _match(self, receiver: Head, edits: list[Change]) -> Array:
        layer, head = receiver
        (pattern,) = up_to(self.model, self.writing.clean, [Site(layer=layer, kind="pattern")], edits)
        mass = (pattern[:, head].float() * self.targets).sum(dim=(-2, -1))
        rows = self.targets.any(dim=2).sum(dim=1)
        return (mass / rows).double().numpy(force=True)
