"""What is told of heads, pairs and layers without being a label: sinks that give way, massive activations, composition.

Rows are counted by what exceeds its floor, and the strongest is named; none of them says what kind of head this is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from innerworks.show import numbers
from innerworks.show.behaviours import BEHAVIOURS, Behaviour, behaviour_of
from innerworks.show.measures import MEASURES, where
from innerworks.show.verdicts import CEILING, Score, score_of

TOGETHER = "composition"  # under which everything about partners is told


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All rows about one thing, the strongest first."""

    behaviour: Behaviour
    scores: tuple[Score, ...]

    @property
    def series(self) -> list[tuple[Score, ...]]:
        """The rows by what was measured: behaviour, measure and material."""
        found: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
        for score in self.scores:
            found[(score.behaviour, *score.series)].append(score)
        return [tuple(scores) for scores in found.values()]


def facts(findings: pl.DataFrame, chapter: str = "heads") -> list[Facts]:
    """Gather what is told of heads (or another chapter) without being a label, in the order of the table of behaviours."""
    mine = findings.filter(pl.col("chapter") == chapter)
    of_layers = _of_layers_alone(mine)
    found: dict[str, list[Score]] = {name: [] for name, one in BEHAVIOURS.items() if one.told or name in of_layers}
    for behaviour, measure in mine.select("behaviour", "measure").unique(maintain_order=True).iter_rows():
        kin = behaviour_of(behaviour).kin
        together = MEASURES[measure].question == "partners" if measure in MEASURES else False
        name = kin if kin in found else TOGETHER if together else None
        if name is not None:
            rows = mine.filter((pl.col("behaviour") == behaviour) & (pl.col("measure") == measure))
            found[name] += [score_of(row) for row in rows.iter_rows(named=True)]
    return [
        Facts(behaviour=behaviour_of(name), scores=tuple(sorted(scores, key=_strength, reverse=True)))
        for name, scores in found.items()
        if scores
    ]


def _of_layers_alone(findings: pl.DataFrame) -> set[str]:
    """Kinds of which only layers or the whole model have rows, and no bound on single parts: there is nothing to label."""
    of_part = pl.col("index").is_not_null() | (pl.col("measure") == CEILING)
    alone = findings.group_by("behaviour").agg(of_part.any()).filter(~pl.col("index"))
    return set(alone["behaviour"])


def _strength(score: Score) -> tuple[bool, float]:
    over = score.effect / score.floor if score.floor and numbers.known(score.effect) else -1.0
    return score.stands_out, over


def place(score: Score) -> str:
    """Where a row is from: `L18H6`, `L18H6 with L16H0`, or for what kind a sink gives way."""
    if score.target is None:
        return score.site
    known = behaviour_of(score.target)
    return f"{score.site}, {known.title}" if score.target in BEHAVIOURS or known.family else f"{score.site} with {score.target}"


def sentences(told: Facts) -> list[str]:
    """For each thing that was measured: how many rows exceed their floor, and the strongest."""
    return [_sentence(scores) for scores in told.series]


def _sentence(scores: Sequence[Score]) -> str:
    scores = [score for score in scores if score.site != "model"] or scores  # what sums up the others is no place beside them
    first, above = scores[0], [score for score in scores if score.stands_out]
    what, kind = first.about.title, behaviour_of(first.behaviour)
    of = "" if kind.told or kind.family else f", {kind.plural}"
    unit = f" {first.unit}" if first.unit else ""
    best = f"{numbers.estimate(first.effect, first.low, first.high)}{unit}"
    said, floor = f"{what[0].upper()}{what[1:]}{of} ({where(first.material)})", numbers.constant(first.floor)
    if first.measure == CEILING:
        return f"{said}: none has more than {numbers.rounded(max(score.high for score in scores))}{unit}, the floor is {floor}."
    if not first.floor:  # a description: nothing was put to a test
        return f"{said}: {best}." if len(scores) == 1 else f"{said}: the largest is {place(first)}, {best}."
    if all(score.p is None and score.q is None for score in scores):
        return f"{said}, {place(first)}: {best}; a description, which was not put to a test."
    if len(scores) == 1:
        return f"{said}, {place(first)}: {best}, {'above' if above else 'not shown to be above'} the floor of {floor}."
    return f"{said}: {len(above)} of {len(scores)} above the floor of {floor}; the strongest is {place(first)}, {best}."
