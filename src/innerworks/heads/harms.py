"""What counts as harm to each kind of head? The one table of metrics, and of the kinds that rungs 2 and 3 are tried on.

A kind's harm is the rise (or fall) of a metric that its claim speaks of; `nats` is the same in nats, for comparison with
`elsewhere`: the loss where the kind does not apply. Fixed before anything is ablated. Kinds without an entry (sinks,
punctuation, anti-copying) have rung 1 only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Head = tuple[int, int]  # layer, head

#: what is read off a prediction: its loss; the probability of wrong tokens that stand in context and are among the ten most
#: likely; the logits of right answers less those of wrong ones; the loss of the right answers; or the attention of other heads
Reading = Literal["loss", "copied", "difference", "answer_loss", "match"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number per unit, averaged over some of its positions."""

    material: str
    reading: Reading = "loss"
    unit: str = "nats"
    falls: bool = False  # it falls when harmed


#: `induction_match@5` is the match averaged over the watched heads above layer 5.
METRICS: dict[str, Metric] = {
    "second_copy_loss": Metric(material="random"),
    "induction_match": Metric(material="random", reading="match", unit="probability", falls=True),
    "text_loss": Metric(material="text"),
    "repeated_loss": Metric(material="text"),
    "fresh_loss": Metric(material="text"),
    "unmatched_loss": Metric(material="text"),
    "joined_loss": Metric(material="text"),
    "single_loss": Metric(material="text"),
    "naive_copying": Metric(material="text", reading="copied", unit="probability"),
    "agreement_difference": Metric(material="agreement", reading="difference", unit="logits", falls=True),
    "agreement_loss": Metric(material="agreement", reading="answer_loss"),
    "next_item_loss": Metric(material="lists", reading="answer_loss"),
}


def metric_of(name: str) -> Metric:
    """Look up a metric, whatever heads it is taken over."""
    return METRICS[name.partition("@")[0]]


def material_of(name: str) -> str:
    """What a metric is measured on."""
    return metric_of(name).material


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What counts as harm to a head: its kind's metric, the same in nats, and the metric where the kind does not apply."""

    metric: str
    nats: str
    elsewhere: str

    @property
    def falls(self) -> bool:
        """Does the metric fall when harmed?"""
        return metric_of(self.metric).falls

    @property
    def unit(self) -> str:
        """Of the metric."""
        return metric_of(self.metric).unit

    @property
    def materials(self) -> tuple[str, ...]:
        """Everything that must be there to judge by it."""
        return tuple(dict.fromkeys(material_of(name) for name in (self.metric, self.nats, self.elsewhere)))

    @property
    def words(self) -> str:
        """The metric in words."""
        name, _, layer = self.metric.partition("@")
        return f"metric: {name.replace('_', ' ')}" + (f" above L{layer}" if layer else "")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How a kind is judged.

    harms: the first whose metric the head can move counts. shown_by: measures of the rows that make a head a label of the kind.
    """

    harms: tuple[Harm, ...]
    shown_by: tuple[str, ...] = ("attention",)


_COPIES = Harm(metric="second_copy_loss", nats="second_copy_loss", elsewhere="unmatched_loss")
_MATCH = Harm(metric="induction_match", nats="second_copy_loss", elsewhere="unmatched_loss")
_REPEATED = Harm(metric="repeated_loss", nats="repeated_loss", elsewhere="fresh_loss")
_FIXED_OFFSET = Judged(harms=(_MATCH, _COPIES))

#: behaviour, or the family that its name begins with (`syntactic:nsubj` is of `syntactic`) -> how it is judged
HARMS: dict[str, Judged] = {
    "previous_token": _FIXED_OFFSET,
    "current_token": _FIXED_OFFSET,
    "offset_2": _FIXED_OFFSET,
    "offset_3": _FIXED_OFFSET,
    "duplicate_token": Judged(harms=(_REPEATED,)),
    "induction": Judged(harms=(_COPIES,)),
    "subword_joiner": Judged(harms=(Harm(metric="joined_loss", nats="joined_loss", elsewhere="single_loss"),)),
    "copying": Judged(harms=(_REPEATED,), shown_by=("eigenvalue", "direct_effect")),
    "copy_suppression": Judged(harms=(Harm(metric="naive_copying", nats="fresh_loss", elsewhere="repeated_loss"),)),
    "successor": Judged(
        harms=(Harm(metric="next_item_loss", nats="next_item_loss", elsewhere="text_loss"),),
        shown_by=("succession", "direct_effect"),
    ),
    "syntactic": Judged(harms=(Harm(metric="agreement_difference", nats="agreement_loss", elsewhere="text_loss"),)),
}


def family(behaviour: str) -> str:
    """`syntactic` of `syntactic:nsubj`; other behaviours are their own."""
    return behaviour.partition(":")[0]


def judged(behaviour: str) -> Judged | None:
    """How a behaviour is judged; None where it has rung 1 only."""
    return HARMS.get(behaviour) or HARMS.get(family(behaviour))


def harm_of(behaviour: str, layer: int, watchers: Sequence[Head]) -> Harm:
    """The metrics of a kind for a head of this layer (fixed before anything is ablated).

    A head at a fixed offset is judged by the match of the confirmed induction heads above it (`watchers`), where there are any.
    """
    how = judged(behaviour)
    assert how is not None, behaviour
    above = any(at > layer for at, _ in watchers)
    harm = next(one for one in how.harms if above or metric_of(one.metric).reading != "match")
    return replace(harm, metric=f"{harm.metric}@{layer}") if metric_of(harm.metric).reading == "match" else harm
