"""Which heads are asked about: labelled induction heads, the labelled previous-token heads below them, and their controls.

1. Receivers: the strongest labelled induction heads that have a labelled previous-token head in an earlier layer.
2. Senders of a receiver: the strongest of those, 8 at most.
3. Controls: 20 heads of the senders' layers (and their neighbours, below the receiver), nearest to the senders in what a removal
   removes, none of them suspected of any kind that is tested by ablation (`labels.suspects_of`); where the model has too few,
   random rotations of what the senders write.
4. All senders together are held against 20 groups with as many heads in each of their layers; where there are too few heads for
   such groups, against rotations of the senders' joint output.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from innerworks.findings import Finding
from innerworks.heads.ablation import set_name
from innerworks.heads.composition.written import Sender
from innerworks.heads.controls import control_groups, how_matched, matched
from innerworks.heads.harms import Head
from innerworks.stats import CONSTANTS, Array


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One receiver, and whose output is removed from what it reads."""

    receiver: Head
    rung: int  # of its label
    senders: tuple[Head, ...]
    controls: tuple[Sender, ...]
    groups: tuple[tuple[Sender, ...], ...]  # controls of all senders together
    overlap: float  # by how much the groups' overlap narrows their spread
    note: str  # how the controls differ from the senders

    def as_json(self) -> dict[str, Any]:
        """As an atlas keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Plan":
        """Read it again."""
        return cls(
            receiver=(data["receiver"][0], data["receiver"][1]),
            rung=data["rung"],
            senders=tuple((layer, head) for layer, head in data["senders"]),
            controls=tuple(_sender(one) for one in data["controls"]),
            groups=tuple(tuple(_sender(one) for one in group) for group in data["groups"]),
            overlap=data["overlap"],
            note=data["note"],
        )

    @property
    def removals(self) -> list[tuple[Sender, ...]]:
        """Everything that is removed from what the receiver reads, each alone: single heads first, then groups."""
        joint = [self.senders, *self.groups] if len(self.senders) > 1 else []
        return [*((one,) for one in (*self.senders, *self.controls)), *joint]


def strengths(findings: Iterable[Finding], behaviour: str) -> dict[Head, tuple[int, float]]:
    """The heads that bear a label: its rung, and its effect in floors on the weaker material; the strongest first."""
    found: dict[Head, tuple[int, float]] = {}
    for one in findings:
        if (one.behaviour, one.measure) == (behaviour, "attention") and one.rung >= 1:
            assert one.layer is not None and one.index is not None
            head = one.layer, one.index
            found[head] = one.rung, min(found.get(head, (0, np.inf))[1], one.effect / one.floor)
    return dict(sorted(found.items(), key=lambda entry: (-entry[1][1], entry[0])))


def plans(
    findings: Sequence[Finding], *, suspects: Collection[Head], removed: Array, receivers: int, senders: int = 8, seed: int = 0
) -> list[Plan]:
    """What is asked of a model, from the labels so far. removed: norm of what a mean ablation removes, `[layer, head]`."""
    induction, previous = strengths(findings, "induction"), strengths(findings, "previous_token")
    found: list[Plan] = []
    for receiver, (rung, _) in induction.items():
        below = [head for head in previous if head[0] < receiver[0]][:senders]
        if below and len(found) < receivers:
            found.append(plan(receiver, below, rung=rung, suspects=suspects, removed=removed, seed=seed))
    return found


def plan(
    receiver: Head, senders: Sequence[Head], *, suspects: Collection[Head], removed: Array, rung: int = 1, seed: int = 0
) -> Plan:
    """Choose the controls of a receiver and its senders."""
    controls = matched(senders, suspects, removed, highest=receiver[0] - 1)
    rng = np.random.default_rng([seed, *receiver])
    drawn = control_groups(senders, suspects, (receiver[0], removed.shape[1]), rng)  # of layers below the receiver
    if drawn is None:
        chosen, overlap = [_turned(senders, draw) for draw in range(CONSTANTS.controls)], 1.0
    else:
        chosen, overlap = [tuple(sorted(group)) for group in drawn.groups], drawn.overlap
    differ = {how_matched(head, controls, removed) for head in senders} - {""}
    return Plan(
        receiver=receiver,
        rung=rung,
        senders=tuple(senders),
        controls=controls,
        groups=tuple(chosen),
        overlap=overlap,
        note="controls shared by its senders" + (", not all of them alike in size" if differ else ""),
    )


def _turned(senders: Sequence[Head], draw: int) -> tuple[Sender, ...]:
    return tuple((layer, head, draw) for layer, head in senders)


def _sender(data: Sequence[int]) -> Sender:
    return (data[0], data[1]) if len(data) == 2 else (data[0], data[1], data[2])


def name_of(senders: Sequence[Sender]) -> str:
    """Some heads as text, `L3H2+L5H0`; `L3H2~4` for a rotation of what one writes."""
    return set_name(frozenset(senders))
