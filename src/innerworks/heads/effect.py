"""Does anything depend on a head, and only what should? Rungs 2 (necessary) and 3 (selective) for labelled heads.

1. *Alone*: each label is mean-ablated; the harm to its kind's own metric is compared, over units and over 20 controls of the
   neighbouring layers (`stats.necessity`, `controls.py`, `tries.py`).
2. *Jointly*, because heads back each other up: what failed alone is tried as part of the strongest labels of its kind. These are
   ablated together, against groups with as many heads per layer; where the group is needed, each one's share is what its
   ablation adds to that of the others, against what controls add.
3. Benjamini-Hochberg over all tries of the chapter; what passes is *necessary*.
4. What is necessary is *selective* if its ablation harms little where the behaviour does not apply (`stats.selectivity`).
5. Beside the rungs: does one head alone bring back what a needed group carries (`sufficiency.py`)?

All on the confirmation half, and all a function of the recorded ablations, which every atlas keeps. Ablations are asked for one
metric at a time, so nothing is run that no decision needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from innerworks.findings import Finding, against_controls, collateral, joined
from innerworks.heads.bench import Bench
from innerworks.heads.harms import harm_of, judged, material_of
from innerworks.heads.labels import Key, Label, chosen, labels_of
from innerworks.heads.sufficiency import sufficiency_rows
from innerworks.heads.tries import Compared, Try, alone, groups_of, joint_tries, q_of
from innerworks.stats import CONSTANTS, Selectivity


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is ablated."""

    candidates: int | None  # labels tried, over all kinds; None is all
    shared_controls: bool  # one set of controls for all labels, instead of each label's own
    joint: bool
    units: Mapping[str, int]  # per material; one that is not named is not used
    text_tokens: int  # read of each document
    sufficiency: bool = False
    kinds: Sequence[str] | None = None  # that are tried; None is all


def climb(findings: Sequence[Finding], bench: Bench, effort: Effort, seed: int) -> list[Finding]:
    """Raise labels to rungs 2 and 3 where they earn it; returns all findings, the old ones with their rung."""
    labels, rungs = _measurable(chosen(labels_of(findings), most=None, kinds=effort.kinds), bench)
    labels = chosen(labels, most=effort.candidates)
    tries = alone(labels, bench, shared_controls=effort.shared_controls) if labels else []
    groups = groups_of(tries, bench, seed) if effort.joint else []
    tries += joint_tries(tries, groups, bench)
    rows: list[Finding] = []
    for one, q in zip(tries, q_of(tries), strict=True):
        rows += _necessity_rows(one, float(q))
        rungs.setdefault(one.label.key, (1, _not_shown(one)))
        if q > CONSTANTS.level:
            continue
        verdict = bench.selectivity(one.pair, one.control_pairs, one.harm, seed)
        metric = one.harm.elsewhere
        words = metric.replace("_", " ")
        rows.append(collateral(verdict, elsewhere=words, material=material_of(metric), **one.label.place))
        rung = 3 if verdict.verdict == "pass" else 2
        says = joined("jointly" if one.group else "alone", "" if rung == 3 else _why_not(verdict))
        rungs[one.label.key] = max(rungs[one.label.key], (rung, says), key=lambda entry: entry[0])
    rows += sufficiency_rows(groups, bench, seed) if effort.sufficiency else []
    return [_raised(row, rungs) for row in findings] + rows


def _measurable(labels: Sequence[Label], bench: Bench) -> tuple[list[Label], dict[Key, tuple[int, str]]]:
    """The labels whose harm can be measured on this model; of the others, why not."""
    out: list[Label] = []
    notes: dict[Key, tuple[int, str]] = {}
    for label in labels:
        lacking = bench.lacks(harm_of(label.behaviour, label.head[0], bench.watchers))
        if lacking is None:
            out.append(label)
        else:
            notes[label.key] = 1, f"rung 2 not measured: {lacking}"
    return out, notes


def _not_shown(one: Try) -> str:
    n = one.passes[0].necessity.n
    return f"rung 2 not decided: only {n} units" if n < CONSTANTS.least_units else "rung 2 tried, not shown"


def _why_not(found: Selectivity) -> str:
    verdict = "not decided" if found.verdict == "not decided" else "fails"
    bound = f"(upper 95 % bound {found.bound:.3f}), limit {found.limit:.3f}"
    times = f"harm is {found.ratio:.0f} times that"
    return f"rung 3 {verdict}: harm elsewhere {found.elsewhere:.3f} nats {bound}; {times}"


def _raised(row: Finding, rungs: Mapping[Key, tuple[int, str]]) -> Finding:
    if row.rung == 0 or row.layer is None or row.index is None or judged(row.behaviour) is None:
        return row
    rung, note = rungs.get((row.behaviour, (row.layer, row.index)), (1, "rung 2 not tried"))
    return replace(row, rung=rung, note=joined(row.note, note))


def _necessity_rows(one: Try, q: float) -> list[Finding]:
    """A try's own harm, and that of its group; the q of a try stands in its first row."""
    rows = []
    if one.compared is not None:
        rows.append(_necessity_row(one, "marginal_harm" if one.group else "harm", one.compared, q=q, note=one.note))
    if one.group is not None:
        q_here, target = (None if rows else q), one.group.names
        rows.append(_necessity_row(one, "joint_harm", one.group.compared, q=q_here, note=one.group.note, target=target))
    return rows


def _necessity_row(
    one: Try, measure: str, compared: Compared, *, q: float | None, note: str, target: str | None = None
) -> Finding:
    found, stopped = compared.necessity, compared.stopped
    few = f"only {found.n} units: not decided" if found.n < CONSTANTS.least_units else ""
    against = "control heads" if measure != "joint_harm" else "control groups"
    return Finding(
        **one.label.place,
        **against_controls(found),
        target=target,
        measure=measure,
        material=material_of(one.harm.metric),
        unit=one.harm.unit,
        null_kind="none" if stopped else against,
        floor=CONSTANTS.harm_floor,
        q=q,
        ablation="mean",
        note=joined(one.harm.words, stopped or note, few),
    )
