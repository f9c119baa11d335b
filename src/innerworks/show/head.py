"""Everything that an atlas knows about one head, gathered for a page: in a terminal, in the report, or as JSON.

1. Its labels with their rungs; without any, what came nearest to one.
2. Every score, under the question that it answers: where it looks, what it writes, what breaks without it, its partners.
3. Partners also as others see them: heads that read what this one writes, groups that were tried jointly with it.
4. Facts about its layer, and the stretches of real text on which it shows what it does.

Scores of large families (relations, domains) that lie below half their floor are counted, not listed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from innerworks.atlas import Atlas, Example
from innerworks.errors import UnknownSite
from innerworks.show import numbers
from innerworks.show.behaviours import BEHAVIOURS, behaviour_of
from innerworks.show.measures import MEASURES, QUESTIONS
from innerworks.show.verdicts import Head, Score, Verdict, score_of, verdicts
from innerworks.sites import Site, head_site

WORTH = 0.5  # of its floor: below, a member of a family is not listed


@dataclass(frozen=True, kw_only=True)
class Partner:
    """What one head has to do with another: `L18H6 loses its match without L16H0`."""

    other: str  # a head, or several
    says: str  # what this head has to do with it: {} stands for the other
    score: Score


@dataclass(frozen=True, kw_only=True)
class HeadPage:
    """One head."""

    site: str
    layer: int
    index: int
    layers: int
    heads: int  # per layer
    labels: tuple[Head, ...]  # the highest rung first, very common ones last
    nearest: Head | None  # what came nearest to a label
    scores: dict[str, tuple[Score, ...]]  # by question, those of labels first
    left_out: dict[str, int]  # by family: how many scores lie too far below their floor to be listed
    partners: tuple[Partner, ...]
    of_layer: tuple[Score, ...]
    examples: tuple[Example, ...]


def page_of(atlas: Atlas, site: str | Site) -> HeadPage:
    """Gather the page of a head. Raises UnknownSite for what is no head of this model."""
    found = verdicts(atlas.findings)
    everywhere = {head.site: head for verdict in found for head in verdict.heads}
    name = _known(everywhere, Site.parse(site))
    measured = [head for verdict in found for head in verdict.heads if head.site == name]
    mine = everywhere[name]
    assert mine.layer is not None and mine.index is not None
    scores, left_out = scores_of(measured, rest_of(atlas.findings, found, name))
    return HeadPage(
        site=name,
        layer=mine.layer,
        index=mine.index,
        layers=1 + max(head.layer or 0 for head in everywhere.values()),
        heads=1 + max(head.index or 0 for head in everywhere.values()),
        labels=labels_of(measured),
        nearest=nearest_of(measured),
        scores=scores,
        left_out=left_out,
        partners=partners(atlas.findings, name),
        of_layer=tuple(score_of(row) for row in _at(atlas.findings, f"L{mine.layer}")),
        examples=tuple(one for one in atlas.examples if one.site == name),
    )


def labels_of(measured: Sequence[Head]) -> tuple[Head, ...]:
    """Of what was measured of a part, what it is labelled with: the highest rung first, very common ones last."""
    return tuple(sorted((head for head in measured if head.rung), key=_prominence))


def nearest_of(measured: Sequence[Head]) -> Head | None:
    """Of what was measured of a part, what came nearest to a label."""
    return max(measured, key=lambda head: head.strength, default=None)


def _prominence(head: Head) -> tuple[int, bool, float]:
    return -head.rung, behaviour_of(head.behaviour).quiet, -head.strength


def _known(known: dict[str, Head], site: Site) -> str:
    if site.layer is None or site.head is None:
        raise UnknownSite(f"{site} is not an attention head: there are pages for heads, such as L3H0, and neurons, such as L3N0.")
    name = head_site(site.layer, site.head)
    if not known:
        raise UnknownSite(f"There is no page for {name}: this atlas has no attention heads; it was scanned without them.")
    if name not in known:
        layers = 1 + max((head.layer or 0 for head in known.values()), default=0)
        heads = 1 + max((head.index or 0 for head in known.values()), default=0)
        raise UnknownSite(
            f"There is no {name} in this atlas: the model has {layers} layers of {heads} heads, "
            f"L0H0 to {head_site(layers - 1, heads - 1)} (both count from zero)."
        )
    return name


def _at(findings: pl.DataFrame, site: str, chapter: str = "heads") -> list[dict]:
    return findings.filter((pl.col("chapter") == chapter) & (pl.col("site") == site)).rows(named=True)


def rest_of(findings: pl.DataFrame, found: Sequence[Verdict], site: str, chapter: str = "heads") -> list[Score]:
    """Scores of this part that belong to no kind of part: how its sink gives way, and the like."""
    kinds = {verdict.behaviour.name for verdict in found}
    return [score_of(row) for row in _at(findings, site, chapter) if row["behaviour"] not in kinds]


def scores_of(measured: Sequence[Head], rest: Sequence[Score]) -> tuple[dict[str, tuple[Score, ...]], dict[str, int]]:
    """By question: those of labels first, then what stands out; and how many are not worth a row, by family."""
    by_question: dict[str, list[Score]] = {question: [] for question in QUESTIONS}
    left_out: dict[str, int] = {}
    for head in sorted(measured, key=_prominence):
        for score in (*head.seen, *head.causal):
            if is_worth(score, labelled=head.rung > 0):
                by_question[score.about.question].append(score)
            else:
                family = behaviour_of(score.behaviour).kin
                left_out[family] = left_out.get(family, 0) + 1
    for score in rest:
        by_question[score.about.question].append(score)
    labelled = {head.behaviour for head in measured if head.rung}

    def place(score: Score) -> int:
        return 0 if score.behaviour in labelled else 1 if score.stands_out else 2

    ordered = {question: tuple(sorted(scores, key=place)) for question, scores in by_question.items()}
    return {question: scores for question, scores in ordered.items() if question != "partners"}, left_out


def is_worth(score: Score, *, labelled: bool) -> bool:
    """Is a score worth a row? One of a label, of a kind that has no family, or not far below its floor."""
    family = behaviour_of(score.behaviour).family
    return labelled or not family or (numbers.known(score.effect) and score.effect > WORTH * score.floor)


_HEAD = re.compile(r"L\d+H\d+")


def heads_in(target: str | None) -> list[str]:
    """The heads that a target names."""
    return _HEAD.findall(target or "")


def partners(findings: pl.DataFrame, site: str) -> tuple[Partner, ...]:
    """Everything that this head has to do with others, the strongest first; each group that was tried jointly once."""
    named = pl.col("target").fill_null("").str.contains(rf"\b{site}\b")
    rows = findings.filter((pl.col("chapter") == "heads") & ((pl.col("site") == site) | named) & pl.col("target").is_not_null())
    result: dict[tuple, Partner] = {}
    for score in (score_of(row) for row in rows.iter_rows(named=True)):
        one = _partner(score, site)
        if one is not None:
            result.setdefault((one.other, one.says, score.behaviour, *score.series, score.effect), one)
    order = list(MEASURES)

    def place(one: Partner) -> tuple[bool, int, float]:
        known = order.index(one.score.measure) if one.score.measure in order else len(order)
        return not one.score.stands_out, known, -abs(one.score.effect)

    return tuple(sorted(result.values(), key=place))


def _partner(score: Score, site: str) -> Partner | None:
    """A row of a pair or group from where this head stands: as the one measured, or as one that the row names."""
    about, mine = score.about, score.site == site
    says = about.of_pair if mine else about.by_pair
    named = heads_in(score.target)
    if not mine:
        named = [score.site] if about.question == "partners" else [score.site, *named]  # of a group, all others
    others = sorted({one for one in named if one != site}, key=_order)
    return Partner(other=", ".join(others), says=says, score=score) if says and others else None


def _order(site: str) -> tuple[int, int]:
    parsed = Site.parse(site)
    return parsed.layer or 0, parsed.head or 0


def as_json(page: HeadPage, findings: pl.DataFrame) -> dict[str, object]:
    """Return the whole page as plain data; every finding of the head is in it."""
    return {
        "site": page.site,
        "labels": [
            {"behaviour": head.behaviour, "title": head.title, "rung": head.rung, "q": _plain(head.q), "note": head.note}
            for head in page.labels
        ],
        "findings": findings.fill_nan(None).filter(pl.col("site") == page.site).to_dicts(),
        "partners": [
            {
                "other": one.other,
                "says": one.says.format(one.other),
                "behaviour": one.score.behaviour,
                "measure": one.score.measure,
                "material": one.score.material,
                "effect": _plain(one.score.effect),
                "low": _plain(one.score.low),
                "high": _plain(one.score.high),
                "unit": one.score.unit,
                "stands_out": one.score.stands_out,
            }
            for one in page.partners
        ],
        "layer": findings.fill_nan(None).filter(pl.col("site") == f"L{page.layer}").to_dicts(),
        "examples": [one.as_dict() for one in page.examples],
    }


def _plain(value: float | None) -> float | None:
    return value if numbers.known(value) else None


def subject(score: Score) -> str:
    """What a score is about: the kind of head and, where it is not the plain one, the measure."""
    kind = behaviour_of(score.behaviour)
    told = {"attention": "", "harm_contrast": ""}.get(score.measure, score.about.title).removeprefix("attention, ")
    if kind.told or kind.kin in BEHAVIOURS and BEHAVIOURS[kind.kin].told:
        of = behaviour_of(score.target) if score.target else None  # a sink that gives way for a kind
        return f"{of.title}, {told}" if of is not None and (of.name in BEHAVIOURS or of.family) else told
    return f"{kind.title}, {told}" if told else kind.title
