"""Does anything depend on a head, and only what should? Rungs 2 (necessary) and 3 (selective) for labelled heads.

1. *Alone*: each label is mean-ablated; the harm to its kind's own metric is compared, over units and over at least 20 matched
   controls of the neighbouring layers (`stats.necessity`).
2. *Jointly*, because heads back each other up: the strongest labels of a kind are ablated together, against groups with as many
   heads per layer; and each one's share is what its ablation adds to that of the others, against what controls add.
3. Benjamini-Hochberg over all tries of the chapter; what passes is *necessary*.
4. What is necessary is *selective* if its ablation harms little where the behaviour does not apply (`stats.selectivity`).

All on the confirmation half, and all a function of the recorded ablations, which every atlas keeps. Ablations are asked for one
metric at a time, so nothing is run that no decision needs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from innerworks.findings import Finding
from innerworks.heads.ablation import METRICS, Head, Heads, Rotated
from innerworks.heads.kinds import KINDS
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Necessity, Selectivity, adjust, necessity, selectivity

Without = Callable[[Iterable[Head | Rotated], str], Array]  # (heads ablated, metric) -> the metric per unit
Pair = tuple[Heads, Heads]  # harm is what the first ablation costs more than the second


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


def harm_of(behaviour: str, *, induction_confirmed: bool) -> Harm:
    """The metrics of a kind (fixed before anything is ablated)."""
    if behaviour == "previous_token" and induction_confirmed:
        return Harm(metric="induction_match", nats="second_copy_loss", elsewhere="unmatched_loss", falls=True)
    return {
        "previous_token": Harm(metric="second_copy_loss", nats="second_copy_loss", elsewhere="unmatched_loss"),
        "induction": Harm(metric="second_copy_loss", nats="second_copy_loss", elsewhere="unmatched_loss"),
        "duplicate_token": Harm(metric="repeated_loss", nats="repeated_loss", elsewhere="fresh_loss"),
    }[behaviour]


@dataclass(frozen=True, kw_only=True)
class Label:
    """A head seen at rung 1, how strongly, and with which controls it is compared."""

    behaviour: str
    head: Head
    strength: float  # effect in floors, on the weaker material
    controls: tuple[Head | Rotated, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Try:
    """One try at rung 2: of a head alone, or of its part in a group."""

    label: Label
    jointly: bool
    pair: Pair  # the head: what its ablation is compared with
    control_pairs: tuple[Pair, ...]
    necessity: Necessity
    group: Necessity | None = None  # of the whole group, for a joint try

    @property
    def p(self) -> float:
        """Of "not necessary"; a joint try must pass as a group and by its own part."""
        return self.necessity.p if self.group is None else max(self.necessity.p, self.group.p)


# --- labels and their controls -----------------------------------------------------------------------------------


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


def tried(labels: Sequence[Label], effort: Effort) -> list[Label]:
    """Which labels are tried: all, or the strongest of each kind in turn."""
    if effort.candidates is None:
        return list(labels)
    rank = {label: [x for x in labels if x.behaviour == label.behaviour].index(label) for label in labels}
    return sorted(labels, key=lambda label: (rank[label], -label.strength))[: effort.candidates]


def matched(
    heads: Iterable[Head], excluded: Iterable[Head], removed: Array, *, count: int = CONSTANTS.controls
) -> tuple[tuple[Head | Rotated, ...], str]:
    """Heads of the same layers, one up and one down (wider until there are enough), nearest in what an ablation removes.

    Where the model has too few, what the heads' own ablation removes is added under random rotations; the note says so.
    """
    heads, taken = list(heads), set(excluded) | set(heads)
    layers, per_layer = removed.shape
    size = np.exp(np.mean([np.log(max(removed[head], 1e-12)) for head in heads]))
    pool: list[Head] = []
    for reach in range(1, layers + 1):
        near = {layer for at, _ in heads for layer in range(max(0, at - reach), min(layers, at + reach + 1))}
        pool = [(layer, head) for layer in sorted(near) for head in range(per_layer) if (layer, head) not in taken]
        if len(pool) >= count:
            break
    distance = {head: abs(float(np.log(max(removed[head], 1e-12) / size))) for head in pool}
    chosen = tuple(sorted(pool, key=lambda head: (distance[head], head))[:count])
    if len(chosen) < count:
        missing = count - len(chosen)
        rotated = tuple((*heads[draw % len(heads)], draw) for draw in range(missing))
        return chosen + rotated, f"{missing} of {count} controls are rotations of what is removed, which flatter"
    off = sum(distance[head] > np.log(CONSTANTS.matched_factor) for head in chosen)
    return chosen, f"{off} of {count} controls differ more than twofold in removed norm" if off else ""


def with_controls(
    labels: Sequence[Label], picked: Mapping[str, set[Head]], removed: Mapping[str, Array], effort: Effort
) -> list[Label]:
    """Give each label its controls. picked: the candidates of each kind, which are nobody's control."""
    if effort.shared_controls:
        everyone = set().union(*picked.values())
        chosen, note = matched([label.head for label in labels], everyone, removed["random"])
        return [replace(label, controls=chosen, note=_joined(note, "controls shared by all labels")) for label in labels]
    out = []
    for label in labels:
        chosen, note = matched([label.head], picked[label.behaviour], removed[_material(label.behaviour)])
        out.append(replace(label, controls=chosen, note=note))
    return out


def _material(behaviour: str) -> str:
    return METRICS[harm_of(behaviour, induction_confirmed=False).metric]


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


# --- rung 2 ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where harm is read off: the ablations, and the strata of their units per material."""

    without: Without
    strata: Mapping[str, Sequence[str]]

    def harm(self, pair: Pair, metric: str, *, falls: bool = False) -> Array:
        """Harm per unit of one metric."""
        rise = self.without(pair[0], metric) - self.without(pair[1], metric)
        return -rise if falls else rise

    def known(self, values: Array, metric: str) -> tuple[Array, list[str]]:
        """Drop units without a row for the metric; returns values and strata of the others."""
        known = ~np.isnan(values)
        return values[known], [s for s, k in zip(self.strata[METRICS[metric]], known, strict=True) if k]

    def necessity(self, pair: Pair, controls: Sequence[Pair], harm: Harm) -> Necessity:
        """Test the harm of one ablation against that of its controls."""
        mine, strata = self.known(self.harm(pair, harm.metric, falls=harm.falls), harm.metric)
        theirs = [self.known(self.harm(control, harm.metric, falls=harm.falls), harm.metric)[0] for control in controls]
        return necessity(mine, np.stack(theirs), strata)

    def selectivity(self, one: Try, harm: Harm, rng: np.random.Generator) -> Selectivity:
        """Test the harm of one ablation against its harm where the behaviour does not apply."""
        here = self.known(self.harm(one.pair, harm.nats), harm.nats)
        there = self.known(self.harm(one.pair, harm.elsewhere), harm.elsewhere)
        controls = np.array([np.nanmean(self.harm(pair, harm.elsewhere)) for pair in one.control_pairs])
        return selectivity(*here, *there, controls, rng)


def alone(label: Label, harm: Harm, bench: Bench) -> Try:
    """Ablate one head and each of its controls."""
    nothing: Heads = frozenset()
    pair = frozenset([label.head]), nothing
    controls = tuple((frozenset([control]), nothing) for control in label.controls)
    return Try(label=label, jointly=False, pair=pair, control_pairs=controls, necessity=bench.necessity(pair, controls, harm))


def jointly(
    labels: Sequence[Label], picked: set[Head], removed: Array, harm: Harm, bench: Bench, rng: np.random.Generator
) -> list[Try]:
    """Ablate the strongest labels of a kind together, and ask of each what it adds to the others."""
    strongest = labels[: CONSTANTS.joint_members]
    members: Heads = frozenset(label.head for label in strongest)
    nothing: Heads = frozenset()
    groups = control_groups([label.head for label in strongest], picked, removed.shape[1], rng)
    extra, note = matched([label.head for label in strongest], picked, removed)
    if len(groups) < CONSTANTS.controls:
        return []
    group = bench.necessity((members, nothing), [(one, nothing) for one in groups], harm)
    controls = tuple((members | {control}, members) for control in extra)
    tries = []
    for label in strongest:
        pair = members, members - {label.head}
        part = bench.necessity(pair, controls, harm)
        one = replace(label, controls=extra, note=note)
        tries.append(Try(label=one, jointly=True, pair=pair, control_pairs=controls, necessity=part, group=group))
    return tries


def control_groups(members: Iterable[Head], picked: set[Head], per_layer: int, rng: np.random.Generator) -> list[Heads]:
    """Groups with as many heads in each layer as the members have, none of them a candidate; distinct, 20 where possible."""
    members = sorted(members)
    layers = sorted({layer for layer, _ in members})
    free = {layer: [h for h in range(per_layer) if (layer, h) not in picked] for layer in layers}
    wanted = {layer: sum(at == layer for at, _ in members) for layer in free}
    if any(len(free[layer]) < count for layer, count in wanted.items()):
        return []
    groups: dict[Heads, None] = {}
    for _ in range(50 * CONSTANTS.controls):
        drawn = [(layer, int(h)) for layer in sorted(wanted) for h in rng.choice(free[layer], wanted[layer], replace=False)]
        groups[frozenset(drawn)] = None
        if len(groups) == CONSTANTS.controls:
            break
    return list(groups)


# --- rung 3, and findings ----------------------------------------------------------------------------------------


def climb(
    findings: Sequence[Finding],
    picked: Mapping[str, set[Head]],
    removed: Mapping[str, Array],
    bench: Bench,
    effort: Effort,
    seed: int,
) -> list[Finding]:
    """Raise labels to rungs 2 and 3 where they earn it; returns all findings, the old ones with their rung.

    picked: candidates of each kind on discovery. removed: norm that an ablation removes, per material `[layer, head]`.
    """
    every = labels_of(findings)
    labels = with_controls(tried(every, effort), picked, removed, effort) if every else []
    confirmed = any(label.behaviour == "induction" for label in every)
    harms = {label.behaviour: harm_of(label.behaviour, induction_confirmed=confirmed) for label in every}
    tries = [alone(label, harms[label.behaviour], bench) for label in labels]
    if effort.joint:
        tries += _joint_tries(tries, labels, picked, removed, harms, bench, seed)
    rungs: dict[tuple[str, Head], tuple[int, str]] = {}
    rows: list[Finding] = []
    for one, q in zip(tries, adjust(np.array([one.p for one in tries])), strict=True):
        harm, key = harms[one.label.behaviour], (one.label.behaviour, one.label.head)
        rows += _necessity_rows(one, harm, float(q))
        if q > CONSTANTS.level:
            continue
        verdict = bench.selectivity(one, harm, np.random.default_rng(seed))
        rows.append(_selectivity_row(one, harm, verdict, float(q)))
        rung = 3 if verdict.verdict == "pass" else 2
        says = _joined("jointly" if one.jointly else "alone", "" if rung == 3 else _why_not(verdict))
        rungs[key] = max(rungs.get(key, (0, "")), (rung, says), key=lambda entry: entry[0])
    return [_raised(row, rungs, labels) for row in findings] + rows


def _joint_tries(
    tries: Sequence[Try],
    labels: Sequence[Label],
    picked: Mapping[str, set[Head]],
    removed: Mapping[str, Array],
    harms: Mapping[str, Harm],
    bench: Bench,
    seed: int,
) -> list[Try]:
    """Try jointly what failed alone."""
    out: list[Try] = []
    for number, behaviour in enumerate(sorted({label.behaviour for label in labels})):
        mine = [label for label in labels if label.behaviour == behaviour]
        failed = {one.label.head for one in tries if one.label.behaviour == behaviour and one.p > CONSTANTS.level}
        if len(mine) < 2 or not failed:
            continue
        harm, rng = harms[behaviour], np.random.default_rng([seed, number])
        joint = jointly(mine, picked[behaviour], removed[METRICS[harm.metric]], harm, bench, rng)
        out += [one for one in joint if one.label.head in failed]
    return out


def _why_not(found: Selectivity) -> str:
    verdict = "not decided" if found.verdict == "not decided" else "fails"
    bounds = f"[{found.elsewhere_low:.3f}, {found.elsewhere_high:.3f}], limit {found.limit:.3f}"
    return f"rung 3 {verdict}: harm elsewhere {found.elsewhere:.3f} nats {bounds}; ratio {found.ratio:.1f}"


def _raised(row: Finding, rungs: Mapping[tuple[str, Head], tuple[int, str]], labels: Sequence[Label]) -> Finding:
    if row.rung == 0 or not KINDS[row.behaviour].causal:
        return row
    assert row.layer is not None and row.index is not None
    key = row.behaviour, (row.layer, row.index)
    rung, note = rungs.get(key, (1, ""))
    if not note:
        was_tried = any((label.behaviour, label.head) == key for label in labels)
        note = "rung 2 tried, not shown" if was_tried else "rung 2 not tried"
    return replace(row, rung=rung, note=_joined(row.note, note))


def _necessity_rows(one: Try, harm: Harm, q: float) -> list[Finding]:
    unit = "nats" if not harm.falls else "probability"
    common = {
        "behaviour": one.label.behaviour,
        "head": one.label.head,
        "material": METRICS[harm.metric],
        "unit": unit,
        "q": q,
    }
    measure = "marginal_harm" if one.jointly else "harm"
    note = _joined(f"metric: {harm.metric.replace('_', ' ')}", one.label.note)
    rows = [_row(measure, one.necessity, note=note, p=one.necessity.p, **common)]
    if one.group is not None:
        note, members = f"metric: {harm.metric.replace('_', ' ')}", ", ".join(head_site(*head) for head in sorted(one.pair[0]))
        rows.append(_row("joint_harm", one.group, note=note, p=one.group.p, target=members, **common))
    return rows


def _row(
    measure: str,
    found: Necessity,
    *,
    behaviour: str,
    head: Head,
    material: str,
    unit: str,
    q: float,
    p: float,
    note: str,
    target: str | None = None,
) -> Finding:
    return Finding(
        chapter="heads",
        behaviour=behaviour,
        site=head_site(*head),
        target=target,
        layer=head[0],
        index=head[1],
        measure=measure,
        material=material,
        value=found.harm,
        unit=unit,
        effect=found.excess,
        effect_low=found.excess_low,
        effect_high=found.excess_high,
        n=found.n,
        null=found.control,
        null_kind="matched controls",
        floor=CONSTANTS.harm_floor,
        p=p,
        mde=found.mde,
        q=q,
        ablation="mean",
        note=_joined(note, "" if found.above_all else "a control harms as much"),
    )


def _selectivity_row(one: Try, harm: Harm, found: Selectivity, q: float) -> Finding:
    return Finding(
        chapter="heads",
        behaviour=one.label.behaviour,
        site=head_site(*one.label.head),
        layer=one.label.head[0],
        index=one.label.head[1],
        measure="collateral",
        material=METRICS[harm.elsewhere],
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
        q=q,
        ablation="mean",
        note=_joined(
            f"{found.verdict}: ratio {found.ratio:.1f} [{found.ratio_low:.1f}, {found.ratio_high:.1f}]",
            f"metric: {harm.elsewhere.replace('_', ' ')}",
        ),
    )
