"""What is tried at rung 2: each head alone, and as a part of the strongest heads of its kind.

1. The harm itself must exceed the floor (p <= .05 over units). Else it is not necessary, whatever controls do: p is 1, and none
   is run.
2. It is tested against 20 controls (`controls.py`): heads for a head, groups with as many heads per layer for a group, and for a
   member's part what a control adds when it is ablated beside the whole group. It must harm more than each of them, so once one
   harms as much, p is 1 and those after it are not run; those whose ablation removes most come first.
3. The part of a member is only asked for where its group is needed.

Where not all controls were run, the effect of a try is the harm itself, with nothing taken off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from innerworks.findings import joined
from innerworks.heads.ablation import Heads, Rotated, set_name
from innerworks.heads.bench import NOTHING, Bench, Pair
from innerworks.heads.controls import Control, control_groups, how_matched, matched
from innerworks.heads.harms import Harm, Head, family, harm_of, material_of, metric_of
from innerworks.heads.labels import Label
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Necessity, adjust

BELOW = "the harm itself is not shown to exceed the floor: no controls run"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A harm beside its controls, or why not all of them were run."""

    necessity: Necessity
    stopped: str = ""


def compare(pair: Pair, controls: Sequence[Pair], harm: Harm, bench: Bench, *, overlap: float = 1.0) -> Compared:
    """Test a harm against its controls, as far as there is anything to decide."""
    own = bench.own(pair, harm)
    if own.p_units > CONSTANTS.level:
        return Compared(necessity=own, stopped=BELOW)
    rival = bench.rival(pair, controls, harm)
    if rival is not None:
        return Compared(necessity=own, stopped=f"a control harms as much: {set_name(rival[0] - rival[1] or rival[0])}")
    return Compared(necessity=bench.necessity(pair, controls, harm, overlap=overlap))


@dataclass(frozen=True, kw_only=True)
class Try:
    """One try at rung 2: of a head alone, or of its part in a group.

    compared: None for a member of a group that is not needed, whose part is then not asked for.
    """

    label: Label
    harm: Harm
    pair: Pair
    control_pairs: tuple[Pair, ...]
    compared: Compared | None
    note: str
    group: "Group | None" = None  # for a joint try

    @property
    def p(self) -> float:
        """Of "not necessary"; a joint try must pass as a group and by its own part."""
        return max(one.necessity.p for one in self.passes)

    @property
    def passes(self) -> list[Compared]:
        """What it must pass."""
        found = [self.compared, self.group.compared if self.group else None]
        return [one for one in found if one is not None]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The strongest labels of one kind, ablated together; extra: controls that are ablated beside them, one at a time."""

    labels: tuple[Label, ...]
    harm: Harm
    compared: Compared
    extra: tuple[Control, ...]
    note: str = ""  # how the control groups were drawn

    @property
    def members(self) -> Heads:
        """The heads."""
        return frozenset(label.head for label in self.labels)

    @property
    def names(self) -> str:
        """The heads in words."""
        return ", ".join(head_site(layer, head) for layer, head, *_ in sorted(self.members))


def alone(labels: Sequence[Label], bench: Bench, *, shared_controls: bool) -> list[Try]:
    """Ablate each head, and each of its controls.

    With shared controls the metric must be one that every control can move: the loss, not the match of heads above.
    """
    watchers = () if shared_controls else bench.watchers
    shared = matched([label.head for label in labels], bench.suspects, bench.removed["random"]) if shared_controls else ()
    return [_alone(label, harm_of(label.behaviour, label.head[0], watchers), shared, bench) for label in labels]


def _alone(label: Label, harm: Harm, shared: tuple[Control, ...], bench: Bench) -> Try:
    removed, pair = bench.removed[material_of(harm.metric)], (frozenset([label.head]), NOTHING)
    controls = shared or matched([label.head], bench.suspects, removed, highest=_highest(harm, label.head[0]))
    pairs = tuple((one, NOTHING) for one in _largest_first([frozenset([control]) for control in controls], removed))
    said = ["controls shared by all labels" if shared else "", how_matched(label.head, controls, removed)]
    note, compared = joined(*said), compare(pair, pairs, harm, bench)
    return Try(label=label, harm=harm, pair=pair, control_pairs=pairs, compared=compared, note=note)


def _largest_first(sets: Sequence[Heads], removed: Array) -> list[Heads]:
    """Those likeliest to harm as much before the others."""
    return sorted(sets, key=lambda heads: -sum(removed[one[0], one[1]] ** 2 for one in heads))


def _highest(harm: Harm, layer: int) -> int | None:
    """The highest layer of a control: attention above a head cannot be moved by what lies above itself."""
    return layer if metric_of(harm.metric).reading == "match" else None


def group_of(labels: Sequence[Label], bench: Bench, rng: np.random.Generator) -> Group | None:
    """Ablate the strongest heads of one kind together, given its labels; None where there are no control groups."""
    heads = list(dict.fromkeys(label.head for label in labels))[: CONSTANTS.joint_members]
    strongest = tuple(label for label in labels if label.head in heads)
    top, pair = max(layer for layer, _ in heads), (frozenset[Head | Rotated](heads), NOTHING)
    harm = harm_of(labels[0].behaviour, top, bench.watchers)
    removed = bench.removed[material_of(harm.metric)]
    layers, per_layer = removed.shape
    highest = _highest(harm, top)
    drawn = control_groups(heads, bench.suspects, (layers if highest is None else highest + 1, per_layer), rng)
    if drawn is None:
        return None
    pairs = [(one, NOTHING) for one in _largest_first(drawn.groups, removed)]
    compared = compare(pair, pairs, harm, bench, overlap=drawn.overlap)
    extra = matched(heads, bench.suspects, removed, highest=highest)
    return Group(labels=strongest, harm=harm, compared=compared, extra=extra, note=drawn.note)


def part(label: Label, group: Group, bench: Bench) -> Try:
    """Ask of a member what it adds to the harm of the others."""
    pair = group.members, group.members - {label.head}
    removed = bench.removed[material_of(group.harm.metric)]
    beside = _largest_first([group.members | {control} for control in group.extra], removed)
    pairs = tuple((one, group.members) for one in beside)
    needed = group.compared.necessity.p <= CONSTANTS.level
    compared = compare(pair, pairs, group.harm, bench) if needed else None
    note = how_matched(label.head, group.extra, removed)
    return Try(label=label, harm=group.harm, pair=pair, control_pairs=pairs, compared=compared, note=note, group=group)


def groups_of(tries: Sequence[Try], bench: Bench, seed: int) -> list[Group]:
    """The group of each kind that has two heads or more; syntactic relations are one kind here, since one harm judges them."""
    kinds = sorted({family(one.label.behaviour) for one in tries})
    found: list[Group] = []
    for number, kind in enumerate(kinds):
        labels = [one.label for one in tries if family(one.label.behaviour) == kind]
        several = len({label.head for label in labels}) >= 2
        group = group_of(labels, bench, np.random.default_rng([seed, number])) if several else None
        found += [group] if group else []
    return found


def joint_tries(tries: Sequence[Try], groups: Sequence[Group], bench: Bench) -> list[Try]:
    """Try jointly what failed alone."""
    failed = {one.label.key for one, q in zip(tries, q_of(tries), strict=True) if q > CONSTANTS.level}
    members = [(label, group) for group in groups for label in group.labels]
    return [part(label, group, bench) for label, group in members if label.key in failed]


def q_of(tries: Sequence[Try]) -> Array:
    """Benjamini-Hochberg over all tries."""
    return adjust(np.array([one.p for one in tries]))
