"""Which labels are rungs 2 and 3 tried on, and in which order?

A label is a head that findings show at rung 1 for a kind with a harm (`harms.py`), whatever it was shown by: attention, weights,
direct effects. Its strength is its effect in floors on the weaker of the rows that decided it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerworks.findings import Finding
from innerworks.heads.harms import Head, family, judged
from innerworks.sites import head_site

Key = tuple[str, Head]


@dataclass(frozen=True, kw_only=True)
class Label:
    """A head seen at rung 1, and how strongly."""

    behaviour: str
    head: Head
    strength: float  # effect in floors, on the weaker row

    @property
    def key(self) -> Key:
        """What it is a label of."""
        return self.behaviour, self.head

    @property
    def place(self) -> dict[str, Any]:
        """Where its findings belong."""
        layer, head = self.head
        return {"chapter": "heads", "behaviour": self.behaviour, "site": head_site(layer, head), "layer": layer, "index": head}


def labels_of(findings: Sequence[Finding]) -> list[Label]:
    """The labels that rungs 2 and 3 can be tried on, strongest first."""
    strengths: dict[Key, float] = {}
    for one in findings:
        if one.rung >= 1 and _decided(one):
            assert one.layer is not None and one.index is not None
            key = one.behaviour, (one.layer, one.index)
            strengths[key] = min(strengths.get(key, np.inf), one.effect / one.floor)
    labels = [Label(behaviour=behaviour, head=head, strength=x) for (behaviour, head), x in strengths.items()]
    return sorted(labels, key=lambda label: (-label.strength, label.behaviour, label.head))


def suspects_of(findings: Sequence[Finding]) -> set[Head]:
    """Heads that may be of some kind tested by ablation, labelled or not: none of them is a control.

    They are what discovery picked, which alone has a q; where every head has one (weights), those above the floor on every row
    that decides.
    """
    rows: dict[tuple[str, str, str], list[Finding]] = {}
    for one in findings:
        if _of_kind(one):
            rows.setdefault((one.behaviour, one.measure, one.material), []).append(one)
    picked: dict[Key, bool] = {}
    for some in (some for some in rows.values() if any(one.q is not None for one in some)):  # the others stand beside a label
        of_all = all(one.q is not None for one in some)
        for one in some:
            assert one.layer is not None and one.index is not None
            key = one.behaviour, (one.layer, one.index)
            picked[key] = picked.get(key, True) and one.q is not None and (one.effect > one.floor or not of_all)
    return {head for (_, head), suspect in picked.items() if suspect} | {label.head for label in labels_of(findings)}


def _of_kind(one: Finding) -> bool:
    """Is a row one of those that may make a head a label of a kind with a harm?"""
    how = judged(one.behaviour)
    return how is not None and one.layer is not None and one.measure in how.shown_by


def _decided(one: Finding) -> bool:
    """Does a row decide a label? Rows without a q stand beside one."""
    return _of_kind(one) and one.q is not None


def chosen(labels: Sequence[Label], *, most: int | None, kinds: Sequence[str] | None = None) -> list[Label]:
    """Which labels are tried: all, or the strongest of each kind in turn, `most` in all.

    Relations are no kinds of their own here: of `syntactic:nsubj`, `syntactic:obj`, ... the strongest head of each counts, and
    they take turns as one kind. kinds: nothing but these.
    """
    labels = [label for label in labels if kinds is None or family(label.behaviour) in kinds]
    if most is None:
        return labels
    seen: dict[str, int] = {}
    turns: list[tuple[int, float, int]] = []
    relations: set[str] = set()
    for number, label in enumerate(labels):
        kind = family(label.behaviour)
        if kind != label.behaviour and label.behaviour in relations:
            continue
        relations.add(label.behaviour)
        seen[kind] = seen.get(kind, -1) + 1
        turns.append((seen[kind], -label.strength, number))
    return [labels[number] for _, _, number in sorted(turns)[:most]]
