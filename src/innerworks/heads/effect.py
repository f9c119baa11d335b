"""Does anything depend on a head, and only what should? Rungs 2 (necessary) and 3 (selective) for labelled heads.

1. *Alone*: each label is mean-ablated; the harm to its kind's own metric is compared, over units and over 20 controls of the
   neighbouring layers (`stats.necessity`, `controls.py`).
2. *Jointly*, because heads back each other up: what failed alone is tried as part of the strongest labels of its kind. These are
   ablated together, against groups with as many heads per layer; and each one's share is what its ablation adds to that of the
   others, against what controls add.
3. Benjamini-Hochberg over all tries of the chapter; what passes is *necessary*.
4. What is necessary is *selective* if its ablation harms little where the behaviour does not apply (`stats.selectivity`).

All on the confirmation half, and all a function of the recorded ablations, which every atlas keeps. Ablations are asked for one
metric at a time, so nothing is run that no decision needs.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerworks.findings import Finding
from innerworks.heads.ablation import Head, Heads, material_of
from innerworks.heads.controls import Control, control_groups, how_matched, matched
from innerworks.heads.kinds import KINDS
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Necessity, Selectivity, adjust, necessity, selectivity

Without = Callable[[Iterable[Control], str], Array]  # (heads ablated, metric) -> the metric per unit
Pair = tuple[Heads, Heads]  # harm is what the first ablation costs more than the second
NOTHING: Heads = frozenset()


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is ablated."""

    candidates: int | None  # labels tried, over all kinds; None is all
    shared_controls: bool  # one set of controls for all labels, instead of each label's own
    joint: bool
    units: Mapping[str, int]  # per material
    text_tokens: int  # read of each document


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What counts as harm to a kind: its own metric, the same in nats, and the metric where the kind does not apply."""

    metric: str
    nats: str
    elsewhere: str
    falls: bool = False  # the metric falls when harmed

    @property
    def unit(self) -> str:
        """Of the metric."""
        return "probability" if self.falls else "nats"

    @property
    def words(self) -> str:
        """The metric in words."""
        name, _, layer = self.metric.partition("@")
        return f"metric: {name.replace('_', ' ')}" + (f" above L{layer}" if layer else "")


@dataclass(frozen=True, kw_only=True)
class Label:
    """A head seen at rung 1, and how strongly."""

    behaviour: str
    head: Head
    strength: float  # effect in floors, on the weaker material


@dataclass(frozen=True, kw_only=True)
class Try:
    """One try at rung 2: of a head alone, or of its part in a group."""

    label: Label
    harm: Harm
    pair: Pair
    control_pairs: tuple[Pair, ...]
    necessity: Necessity
    note: str
    group: Necessity | None = None  # of the whole group, for a joint try

    @property
    def p(self) -> float:
        """Of "not necessary"; a joint try must pass as a group and by its own part."""
        return self.necessity.p if self.group is None else max(self.necessity.p, self.group.p)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where harm is read off: the ablations, what is known of their units, and who may be a control.

    strata: of the units, per material. watchers: the confirmed induction heads, whose match is recorded. suspects: candidates
    of every kind tested by ablation. removed: norm of what an ablation removes, per material `[layer, head]`.
    """

    without: Without
    strata: Mapping[str, Sequence[str]]
    watchers: Sequence[Head]
    suspects: Collection[Head]
    removed: Mapping[str, Array]

    def harm(self, pair: Pair, metric: str, *, falls: bool = False) -> Array:
        """Harm per unit of one metric."""
        rise = self.without(pair[0], metric) - self.without(pair[1], metric)
        return -rise if falls else rise

    def necessity(self, pair: Pair, controls: Sequence[Pair], harm: Harm, *, overlap: float = 1.0) -> Necessity:
        """Test the harm of one ablation against that of its controls."""
        mine = self.harm(pair, harm.metric, falls=harm.falls)
        theirs = np.stack([self.harm(control, harm.metric, falls=harm.falls) for control in controls])
        units, strata = self._measured(mine, harm.metric)
        return necessity(mine[units], theirs[:, units], strata, overlap=overlap)

    def selectivity(self, one: Try, seed: int) -> Selectivity:
        """Test the harm of one ablation against its harm where the behaviour does not apply."""
        harm, outside = self.harm(one.pair, one.harm.nats), self.harm(one.pair, one.harm.elsewhere)
        units, strata = self._measured(harm, one.harm.nats)
        others, their_strata = self._measured(outside, one.harm.elsewhere)
        of_controls = np.array([self.harm(pair, one.harm.elsewhere)[others].mean() for pair in one.control_pairs])
        return selectivity(harm[units], strata, outside[others], their_strata, of_controls, seed)

    def _measured(self, harm: Array, metric: str) -> tuple[NDArray[np.bool_], list[str]]:
        """The units that have the metric, and their strata; all where hardly any has: their NaN decides nothing."""
        units = np.isfinite(harm)
        units |= units.sum() < 2
        return units, [name for name, has in zip(self.strata[material_of(metric)], units, strict=True) if has]


# --- what is tried ----------------------------------------------------------------------------------------------


def harm_of(behaviour: str, layer: int, watchers: Sequence[Head]) -> Harm:
    """The metrics of a kind for a head of this layer (fixed before anything is ablated).

    A previous-token head is judged by the match of the confirmed induction heads above it (`watchers`), where there are any.
    """
    if behaviour == "previous_token" and any(at > layer for at, _ in watchers):
        match = f"induction_match@{layer}"
        return Harm(metric=match, nats="second_copy_loss", elsewhere="unmatched_loss", falls=True)
    if behaviour == "duplicate_token":
        return Harm(metric="repeated_loss", nats="repeated_loss", elsewhere="fresh_loss")
    if behaviour == "subword_joiner":
        return Harm(metric="joined_loss", nats="joined_loss", elsewhere="single_loss")
    return Harm(metric="second_copy_loss", nats="second_copy_loss", elsewhere="unmatched_loss")


def labels_of(findings: Sequence[Finding]) -> list[Label]:
    """The labels that rungs 2 and 3 can be tried on, strongest first."""
    strengths: dict[tuple[str, Head], float] = {}
    for one in findings:
        if one.measure == "attention" and one.rung >= 1 and KINDS[one.behaviour].causal:
            assert one.layer is not None and one.index is not None
            key = one.behaviour, (one.layer, one.index)
            strengths[key] = min(strengths.get(key, np.inf), one.effect / one.floor)
    labels = [Label(behaviour=behaviour, head=head, strength=x) for (behaviour, head), x in strengths.items()]
    return sorted(labels, key=lambda label: (-label.strength, label.behaviour, label.head))


def chosen(labels: Sequence[Label], effort: Effort) -> list[Label]:
    """Which labels are tried: all, or the strongest of each kind in turn."""
    if effort.candidates is None:
        return list(labels)
    rank = {label: [x for x in labels if x.behaviour == label.behaviour].index(label) for label in labels}
    return sorted(labels, key=lambda label: (rank[label], -label.strength))[: effort.candidates]


def alone(labels: Sequence[Label], bench: Bench, effort: Effort) -> list[Try]:
    """Ablate each head, and each of its controls.

    With shared controls the metric must be one that every control can move: the loss, not the match of heads above.
    """
    watchers = () if effort.shared_controls else bench.watchers
    shared = matched([label.head for label in labels], bench.suspects, bench.removed["random"]) if effort.shared_controls else ()
    return [_alone(label, harm_of(label.behaviour, label.head[0], watchers), shared, bench) for label in labels]


def _alone(label: Label, harm: Harm, shared: tuple[Control, ...], bench: Bench) -> Try:
    removed = bench.removed[material_of(harm.metric)]
    highest = label.head[0] if harm.falls else None
    controls = shared or matched([label.head], bench.suspects, removed, highest=highest)
    note = _joined("controls shared by all labels" if shared else "", how_matched(label.head, controls, removed))
    pair = frozenset([label.head]), NOTHING
    pairs = tuple((frozenset([control]), NOTHING) for control in controls)
    return Try(label=label, harm=harm, pair=pair, control_pairs=pairs, necessity=bench.necessity(pair, pairs, harm), note=note)


def jointly(labels: Sequence[Label], bench: Bench, rng: np.random.Generator) -> list[Try]:
    """Ablate the strongest labels of one kind together, and ask of each what it adds; no tries where there are no controls."""
    strongest = [label.head for label in labels][: CONSTANTS.joint_members]
    top, members = max(layer for layer, _ in strongest), frozenset(strongest)
    harm = harm_of(labels[0].behaviour, top, bench.watchers)
    removed = bench.removed[material_of(harm.metric)]
    groups, overlap = control_groups(strongest, bench.suspects, removed.shape[1], rng)
    if len(groups) < CONSTANTS.controls:
        return []
    group = bench.necessity((members, NOTHING), [(one, NOTHING) for one in groups], harm, overlap=overlap)
    extra = matched(strongest, bench.suspects, removed, highest=top if harm.falls else None)
    pairs = tuple((members | {control}, members) for control in extra)
    tries = []
    for label in labels[: len(strongest)]:
        pair = members, members - {label.head}
        part, note = bench.necessity(pair, pairs, harm), how_matched(label.head, extra, removed)
        tries.append(Try(label=label, harm=harm, pair=pair, control_pairs=pairs, necessity=part, group=group, note=note))
    return tries


def _joint_tries(tries: Sequence[Try], bench: Bench, seed: int) -> list[Try]:
    """Try jointly what failed alone."""
    failed = {_key(one) for one, q in zip(tries, _q(tries), strict=True) if q > CONSTANTS.level}
    out: list[Try] = []
    for number, behaviour in enumerate(sorted({one.label.behaviour for one in tries})):
        labels = [one.label for one in tries if one.label.behaviour == behaviour]
        if len(labels) >= 2 and any(name == behaviour for name, _ in failed):
            joint = jointly(labels, bench, np.random.default_rng([seed, number]))
            out += [one for one in joint if _key(one) in failed]
    return out


def _key(one: Try) -> tuple[str, Head]:
    return one.label.behaviour, one.label.head


def _q(tries: Sequence[Try]) -> Array:
    return adjust(np.array([one.p for one in tries]))


# --- what comes of it -------------------------------------------------------------------------------------------


def climb(findings: Sequence[Finding], bench: Bench, effort: Effort, seed: int) -> list[Finding]:
    """Raise labels to rungs 2 and 3 where they earn it; returns all findings, the old ones with their rung."""
    labels = chosen(labels_of(findings), effort)
    tries = alone(labels, bench, effort) if labels else []
    tries += _joint_tries(tries, bench, seed) if effort.joint else []
    rungs: dict[tuple[str, Head], tuple[int, str]] = {}
    rows: list[Finding] = []
    for one, q in zip(tries, _q(tries), strict=True):
        rows += _necessity_rows(one, float(q))
        rungs.setdefault(_key(one), (1, _not_shown(one)))
        if q > CONSTANTS.level:
            continue
        verdict = bench.selectivity(one, seed)
        rows.append(_selectivity_row(one, verdict))
        rung = 3 if verdict.verdict == "pass" else 2
        says = _joined("jointly" if one.group else "alone", "" if rung == 3 else _why_not(verdict))
        rungs[_key(one)] = max(rungs[_key(one)], (rung, says), key=lambda entry: entry[0])
    return [_raised(row, rungs) for row in findings] + rows


def _not_shown(one: Try) -> str:
    few = one.necessity.n < CONSTANTS.least_units
    return f"rung 2 not decided: only {one.necessity.n} units" if few else "rung 2 tried, not shown"


def _why_not(found: Selectivity) -> str:
    verdict = "not decided" if found.verdict == "not decided" else "fails"
    bound = f"(upper 95 % bound {found.bound:.3f}), limit {found.limit:.3f}"
    times = f"harm is {found.ratio:.0f} times that"
    return f"rung 3 {verdict}: harm elsewhere {found.elsewhere:.3f} nats {bound}; {times}"


def _raised(row: Finding, rungs: Mapping[tuple[str, Head], tuple[int, str]]) -> Finding:
    if row.rung == 0 or row.behaviour not in KINDS or not KINDS[row.behaviour].causal:
        return row
    assert row.layer is not None and row.index is not None
    rung, note = rungs.get((row.behaviour, (row.layer, row.index)), (1, "rung 2 not tried"))
    return replace(row, rung=rung, note=_joined(row.note, note))


def _necessity_rows(one: Try, q: float) -> list[Finding]:
    measure = "harm" if one.group is None else "marginal_harm"
    rows = [_necessity_row(one, measure, one.necessity, q=q, note=one.note)]
    if one.group is not None:
        members = ", ".join(head_site(head[0], head[1]) for head in sorted(one.pair[0]))
        rows.append(_necessity_row(one, "joint_harm", one.group, q=None, note="", target=members))
    return rows


def _necessity_row(one: Try, measure: str, found: Necessity, *, q: float | None, note: str, target: str | None = None) -> Finding:
    few = f"only {found.n} units: not decided" if found.n < CONSTANTS.least_units else ""
    return Finding(
        **_place(one.label),
        target=target,
        measure=measure,
        material=material_of(one.harm.metric),
        value=found.harm,
        unit=one.harm.unit,
        effect=found.excess,
        effect_low=found.excess_low,
        effect_high=found.excess_high,
        n=found.n,
        df=found.df,
        null=found.control,
        null_kind="control heads" if measure != "joint_harm" else "control groups",
        floor=CONSTANTS.harm_floor,
        p=found.p,
        mde=found.mde,
        q=q,
        ablation="mean",
        note=_joined(one.harm.words, note, few, "" if found.above_all else "a control harms as much"),
    )


def _selectivity_row(one: Try, found: Selectivity) -> Finding:
    bounds = f"{found.ratio:.1f} [{found.ratio_low:.1f}, {found.ratio_high:.1f}]"
    metric = one.harm.elsewhere.replace("_", " ")
    return Finding(
        **_place(one.label),
        measure="collateral",
        material=material_of(one.harm.elsewhere),
        value=found.ratio,
        unit="nats",
        effect=found.elsewhere,
        effect_low=found.elsewhere_low,
        effect_high=found.elsewhere_high,
        n=found.n,
        null=found.limit,
        null_kind="limit of little harm",
        floor=CONSTANTS.selectivity_ratio,
        p=None,
        mde=None,
        ablation="mean",
        note=_joined(
            f"{found.verdict}: harm / harm elsewhere (at least {CONSTANTS.least_collateral}) {bounds}",
            f"upper 95 % bound {found.bound:.4f}",
            f"metric: {metric}",
        ),
    )


def _place(label: Label) -> dict[str, Any]:
    layer, head = label.head
    return {"chapter": "heads", "behaviour": label.behaviour, "site": head_site(layer, head), "layer": layer, "index": head}


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
