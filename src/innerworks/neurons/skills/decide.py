"""Which neurons tell a kind of text, and is it lost without them? From counts and harms to findings, as pure arithmetic.

1. Rung 1, single neurons: the balanced accuracy of each candidate on confirmation documents, by the exact test of `accuracy.py`.
   False discoveries are controlled over skills and candidates (`stats.family_q`). Beside them stands one row per skill and way of
   reading that bounds every other neuron (`ceiling`). The floor is high, since untrained models reach much: with fewer than 24
   documents of a kind not even a neuron that is always right can be told from it.
2. Rung 2, groups: the harm of taking out the best neurons of a skill together, beyond that of control groups, is larger in
   documents of the skill than elsewhere by more than the floor (Welch's t), and so is that difference beyond those of 20 control
   groups (t, and above every one of them). p is the larger of the two. BH over all groups that were tried.
3. Rung 3: the harm elsewhere is little by `stats.selectivity` (a row `collateral` for each necessary group).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerworks.findings import Finding, collateral, joined
from innerworks.model.study import Kept, Units
from innerworks.neurons.groups import how_alike
from innerworks.neurons.skills.accuracy import interval, mde, p_above
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array, Estimate, Selectivity, adjust, family_q, selectivity, two_sample, upper_tail

#: of balanced accuracy above chance. Kinds of text differ in their tokens, and so the best neurons of untrained models are right
#: about .72 to .88 of the documents (docs/log.md); one and a half times as much above chance, as elsewhere, would be above 1.
FLOOR = 0.40
NUMBERS = ("accuracy", "above", "apart", "right", "right_elsewhere")  # columns of a candidate, after where it is
MEASURES = ("predictivity", "predictivity_late")  # by way of reading
UNIT = "balanced accuracy"


@dataclass(frozen=True, kw_only=True)
class Group:
    """The most predictive neurons of a skill, so many of them."""

    skill: str
    size: int

    def __str__(self) -> str:
        """As arrays are called after it."""
        return f"{self.skill}/{self.size}"


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """One neuron that is tested for a skill, and what came of it."""

    skill: int
    way: int
    layer: int
    neuron: int
    accuracy: float
    above: bool
    apart: float
    right: float
    right_elsewhere: float

    @classmethod
    def of(cls, row: Sequence[float]) -> "_Candidate":
        skill, way, layer, neuron = (int(x) for x in row[:4])
        numbers = dict(zip(NUMBERS, row[4:], strict=True))
        return cls(skill=skill, way=way, layer=layer, neuron=neuron, **{**numbers, "above": bool(numbers["above"])})

    def p(self, of: int, of_elsewhere: int) -> float:
        right, other = round(self.right * of), round(self.right_elsewhere * of_elsewhere)
        return p_above(right, of, other, of_elsewhere, FLOOR)


def findings(kept: Kept, units: Units) -> list[Finding]:
    """All rows about skills."""
    if "candidates" not in kept.arrays:
        return []
    return [*_predictivity(kept), *_ceilings(kept), *_groups(kept, units)]


# --- single neurons ----------------------------------------------------------------------------------------------


def _predictivity(kept: Kept) -> list[Finding]:
    candidates = [_Candidate.of(row) for row in kept.arrays["candidates"].tolist()]
    documents = kept.arrays["documents"].tolist()
    skills = range(len(kept.about["domains"]))
    members = {skill: [one for one in candidates if one.skill == skill] for skill in skills}
    p = {str(skill): np.array([one.p(*documents[skill]) for one in members[skill]]) for skill in skills}
    q = family_q(p)
    return [
        _row(kept, one, float(p[str(skill)][i]), float(q[str(skill)][i]))
        for skill in skills
        for i, one in enumerate(members[skill])
    ]


def _row(kept: Kept, one: _Candidate, p: float, q: float) -> Finding:
    of, elsewhere = kept.arrays["documents"][one.skill].tolist()
    low, high = interval(np.array(one.right), of, np.array(one.right_elsewhere), elsewhere)
    told = (
        f"{'above' if one.above else 'below'} its threshold; {one.right:.0%} of {of} documents and {one.right_elsewhere:.0%} of "
    )
    told += f"{elsewhere} others told rightly; {one.accuracy:.2f} where it was chosen"
    return Finding(
        **_place(kept, one.skill),
        site=str(Site(layer=one.layer, neuron=one.neuron)),
        layer=one.layer,
        index=one.neuron,
        measure=MEASURES[one.way],
        value=(one.right + one.right_elsewhere) / 2,
        effect=(one.right + one.right_elsewhere - 1) / 2,
        effect_low=float(low),
        effect_high=float(high),
        unit=UNIT,
        n=of + elsewhere,
        null=0.5,
        null_kind="chance",
        floor=FLOOR,
        p=p,
        mde=mde(of, elsewhere, FLOOR),
        q=q,
        rung=int(q <= CONSTANTS.level),
        note=told,
    )


def _ceilings(kept: Kept) -> list[Finding]:
    """What bounds every neuron of the model, with how many were better at choosing than the best of so many coins."""
    rows = []
    for skill, way, chance, beyond, effect, high in kept.arrays["ceilings"].tolist():
        of, elsewhere = kept.arrays["documents"][int(skill)].tolist()
        told = f"{int(beyond)} neurons are beyond {chance:.2f} at choosing, which the best of as many coins reaches"
        rows.append(
            Finding(
                **_place(kept, int(skill)),
                site="model",
                measure="ceiling",
                value=0.5 + effect,
                effect=effect,
                effect_low=effect,
                effect_high=high,
                unit=UNIT,
                n=of + elsewhere,
                null=0.5,
                null_kind="chance",
                floor=FLOOR,
                p=None,
                mde=mde(of, elsewhere, FLOOR),
                note=joined(MEASURES[int(way)].replace("_", ", "), told),
            )
        )
    return rows


def _place(kept: Kept, skill: int) -> dict[str, Any]:
    return {"chapter": "neurons", "behaviour": f"skill:{kept.about['domains'][skill]}", "material": "text"}


# --- groups ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Harm:
    """What taking out a group cost: beyond the controls, where there are any."""

    inside: Array  # nats, by document
    elsewhere: Array
    excess: Estimate  # difference between the two, beyond that of the controls
    controls: Array | None  # that difference, by control
    controls_elsewhere: Array | None
    p_units: float

    @property
    def p(self) -> float:
        if self.controls is None:
            return 1.0
        own, spread = self.inside.mean() - self.elsewhere.mean(), float(self.controls.std(ddof=1))
        scale = spread * np.sqrt(1 + 1 / len(self.controls))
        beyond = float(upper_tail(own - self.controls.mean(), scale, len(self.controls) - 1)) if spread > 0 else 1.0
        return max(self.p_units, beyond) if own > self.controls.max() else 1.0


def worth_controls(kept: Kept, units: Units) -> list[Group]:
    """Groups whose harm to their own kind of text exceeds that elsewhere by more than the floor; those with most of it first."""
    found = {one: _harm(kept, one, units) for one in _tried(kept)}
    worth = [one for one, harm in found.items() if harm.p_units <= CONSTANTS.level]
    return sorted(worth, key=lambda one: found[one].elsewhere.mean() - found[one].inside.mean())


def _tried(kept: Kept) -> list[Group]:
    groups = [Group(skill=skill, size=size) for skill, size in kept.about.get("perturbed", [])]
    return [one for one in groups if f"{one}/harm" in kept.arrays]


def _harm(kept: Kept, group: Group, units: Units) -> _Harm:
    strata = np.array([units[number][1] for number in kept.arrays[f"{group}/units"].tolist()])
    inside, harm = strata == group.skill, kept.arrays[f"{group}/harm"][0].astype(np.float64)
    controls = kept.arrays.get(f"{group}/controls")
    controls = None if controls is None else controls.astype(np.float64)
    beyond = harm if controls is None else harm - controls.mean(axis=0)
    excess = two_sample(beyond[inside], beyond[~inside])
    return _Harm(
        inside=harm[inside],
        elsewhere=harm[~inside],
        excess=excess,
        controls=None if controls is None else controls[:, inside].mean(axis=1) - controls[:, ~inside].mean(axis=1),
        controls_elsewhere=None if controls is None else controls[:, ~inside].mean(axis=1),
        p_units=float(excess.p_above(CONSTANTS.harm_floor)),
    )


def _groups(kept: Kept, units: Units) -> list[Finding]:
    groups = _tried(kept)
    found = {group: _harm(kept, group, units) for group in groups}
    q = adjust(np.array([one.p for one in found.values()]))
    rows = []
    for group, one_q in zip(groups, q.tolist(), strict=True):
        necessary = one_q <= CONSTANTS.level
        beside = _elsewhere(kept, group, found[group]) if necessary else None
        rung, said = (2 + (beside.verdict == "pass"), f"rung 3 {beside.verdict}") if beside else (0, "")
        rows.append(_group_row(kept, group, found[group], one_q, rung=rung, said=said))
        rows += [collateral(beside, elsewhere="loss of other kinds of text", **_group_place(kept, group))] if beside else []
    return rows


def _elsewhere(kept: Kept, group: Group, harm: _Harm) -> Selectivity:
    """Is there little harm to other kinds of text?"""
    assert harm.controls_elsewhere is not None  # else it would not be necessary
    strata = ([group.skill] * len(harm.inside), ["other"] * len(harm.elsewhere))
    return selectivity(harm.inside, strata[0], harm.elsewhere, strata[1], harm.controls_elsewhere, kept.about["seed"])


def _group_place(kept: Kept, group: Group) -> dict[str, Any]:
    neurons = kept.arrays[f"{group}/harm_neurons"][0].tolist()
    members = ", ".join(str(Site(layer=layer, neuron=neuron)) for layer, neuron in neurons)
    return {**_place(kept, kept.about["domains"].index(group.skill)), "site": "model", "target": members}


def _group_row(kept: Kept, group: Group, harm: _Harm, q: float, *, rung: int, said: str) -> Finding:
    without = harm.controls is None
    alike = "no control groups run" if without else how_alike(kept.arrays[f"{group}/times_as_much"])
    own, other = harm.inside, harm.elsewhere
    told = f"{own.mean():.3f} nats in {len(own)} documents, {other.mean():.3f} in {len(other)} others"
    return Finding(
        **_group_place(kept, group),
        measure="group_harm",
        value=float(own.mean() - other.mean()),
        effect=float(harm.excess.mean),
        effect_low=float(harm.excess.low),
        effect_high=float(harm.excess.high),
        df=harm.excess.df,
        unit="nats",
        n=harm.excess.n,
        null=0.0 if harm.controls is None else float(harm.controls.mean()),
        null_kind="none" if without else "control groups",
        floor=CONSTANTS.harm_floor,
        p=harm.p,
        mde=float(harm.excess.mde(CONSTANTS.harm_floor)),
        q=q,
        rung=rung,
        ablation="mean",
        note=joined(f"the {group.size} most predictive neurons jointly", told, alike, said),
    )
