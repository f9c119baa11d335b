"""What was found and what was not: findings gathered by behaviour and head, counted by rung, put into words.

1. Rows of the same behaviour and head are gathered into one `Head`: its scores by material, and what ablating it did.
2. The heads of one behaviour make a `Verdict`: counts by rung, and the smallest effect that would have been found.
3. A verdict is said in one sentence that claims no more than its rungs: *seen*, *necessary*, *selective*, *not found*.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from innerworks.atlas import Atlas
from innerworks.show import numbers
from innerworks.show.behaviours import DECIDES, MEASURES, SEEN, Behaviour, in_order, word

CAUSAL = tuple(measure for measure in MEASURES if measure not in SEEN)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One finding: a score, its null, and the effect (score minus null) with its 95 % interval over documents.

    Harm elsewhere (`collateral`) is told otherwise: its effect is the harm itself, its null the limit up to which it
    counts as little, its value the ratio of harm to harm elsewhere, its floor the ratio that is asked for.
    """

    measure: str
    material: str
    unit: str
    value: float
    null: float
    null_kind: str
    floor: float
    effect: float
    low: float
    high: float
    n: int
    mde: float | None  # the smallest true effect that would have been found (power 0.9 at p 0.005)
    q: float | None
    note: str
    target: str | None

    @property
    def bound(self) -> float:
        """What the effect is held against: the floor that it must exceed, or the limit that it must stay below."""
        return self.null if self.measure == "collateral" else self.floor

    @property
    def raw(self) -> float | None:
        """The score before its null is taken off, where it is one."""
        return None if self.measure == "collateral" else self.value

    @property
    def compared(self) -> float | None:
        """The null that was taken off, where there is one."""
        return None if self.measure == "collateral" else self.null


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head (or, for joint harm, one group) measured for one behaviour. Rung 0: measured, not labelled."""

    behaviour: str
    site: str
    layer: int | None
    index: int | None
    rung: int
    q: float | None
    note: str
    attention: dict[str, Score]  # by material
    further: tuple[Score, ...]  # the same against further nulls, and what else its pattern shows
    causal: tuple[Score, ...]

    @property
    def seen(self) -> tuple[Score, ...]:
        """All that is read off its pattern."""
        return (*self.attention.values(), *self.further)

    @property
    def deciding(self) -> tuple[Score, ...]:
        """What its label must pass: on each material, and against each null."""
        return tuple(score for score in self.seen if score.measure in DECIDES)

    @property
    def strength(self) -> float:
        """The effect in units of its floor, for the material and null where that is smallest: above 1 it stands out."""
        ratios = [one.effect / one.floor for one in self.deciding if numbers.known(one.effect) and one.floor]
        return min(ratios, default=0.0)

    def harm(self, measure: str) -> Score | None:
        """What ablating the head did, by one of the causal measures, if it was tried."""
        return next((one for one in self.causal if one.measure == measure), None)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Everything that was measured of one behaviour."""

    behaviour: Behaviour
    heads: tuple[Head, ...]  # every head measured, the strongest label first
    groups: tuple[Head, ...] = ()  # ablations that have no single head

    @property
    def labels(self) -> tuple[Head, ...]:
        """The heads that carry the label."""
        return tuple(head for head in self.heads if head.rung >= 1)

    def at_least(self, rung: int) -> int:
        """How many heads reached this rung."""
        return sum(head.rung >= rung for head in self.heads)

    @property
    def tried(self) -> int:
        """How many labelled heads were ablated to see whether they are necessary."""
        return sum(bool(head.causal) or head.rung >= 2 for head in self.labels)

    @property
    def undecided(self) -> str:
        """Why nothing could be decided (too few documents), or nothing."""
        notes = [score.note for head in self.heads for score in head.deciding if "not decided" in score.note]
        return notes[0] if notes and not self.labels else ""

    @property
    def detectable(self) -> dict[str, float]:
        """By material, the effect that would have been found in any of the heads (the largest `mde`)."""
        found: dict[str, list[float]] = defaultdict(list)
        for head in self.heads:
            for score in head.deciding:
                if score.mde is not None and numbers.known(score.mde):
                    found[score.material].append(score.mde)
        return {material: max(values) for material, values in found.items() if values}


def verdicts(findings: pl.DataFrame) -> list[Verdict]:
    """Gather the findings about heads by behaviour, in the order in which they are told."""
    labelled = (
        findings.filter((pl.col("chapter") == "heads") & (pl.col("measure") == "attention"))["behaviour"].unique().to_list()
    )
    about_heads = findings.filter(pl.col("behaviour").is_in(labelled))
    rows: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in about_heads.iter_rows(named=True):
        rows[row["behaviour"]][row["site"]].append(row)
    result = []
    for behaviour in in_order(list(rows)):
        gathered = [_head(behaviour.name, site, found) for site, found in rows[behaviour.name].items()]
        gathered.sort(key=lambda head: (-head.rung, -head.strength, head.layer or 0, head.index or 0))
        single = tuple(head for head in gathered if head.index is not None)
        result.append(Verdict(behaviour=behaviour, heads=single, groups=tuple(h for h in gathered if h.index is None)))
    return result


def _head(behaviour: str, site: str, rows: Sequence[dict]) -> Head:
    scores = [_score(row) for row in rows]
    labels = [row for row in rows if row["measure"] == "attention"]
    first = (labels or rows)[0]
    return Head(
        behaviour=behaviour,
        site=site,
        layer=first["layer"],
        index=first["index"],
        rung=first["rung"] if labels else 0,
        q=first["q"] if labels else None,
        note=first["note"] if labels else "",
        attention={score.material: score for score in scores if score.measure == "attention"},
        further=tuple(score for score in scores if score.measure in SEEN and score.measure != "attention"),
        causal=tuple(score for score in scores if score.measure not in SEEN),
    )


def _score(row: dict) -> Score:
    same = (
        "measure",
        "material",
        "unit",
        "value",
        "null",
        "null_kind",
        "floor",
        "effect",
        "n",
        "mde",
        "q",
        "note",
        "target",
    )
    return Score(**{name: row[name] for name in same}, low=row["effect_low"], high=row["effect_high"])


# --- in words ----------------------------------------------------------------------------------------------------


def sentence(verdict: Verdict) -> str:
    """Say in one sentence what is claimed of one behaviour, no more than its rungs allow."""
    seen, necessary, selective = (verdict.at_least(rung) for rung in (1, 2, 3))
    if not seen:
        return f"No {verdict.behaviour.singular} was found." if not verdict.undecided else f"Not decided: {verdict.undecided}."
    text = f"{numbers.count(seen)} {verdict.behaviour.plural if seen > 1 else verdict.behaviour.singular}"
    text += " were seen" if seen > 1 else " was seen"
    if not necessary:
        return text + (f"; of {verdict.tried} ablated, none is shown to be necessary." if verdict.tried else ".")
    which = f"; {necessary} of {verdict.tried} ablated {'is' if necessary == 1 else 'are'} shown to be necessary"
    if not selective:
        return text + which + "."
    if selective == necessary:
        return text + which + " and selective."
    return text + which + f", {selective} of {'it' if necessary == 1 else 'them'} also selective."


def headline(found: Sequence[Verdict]) -> str:
    """Say in two sentences what the whole scan of the heads found."""
    heads = {head.site for verdict in found for head in verdict.heads}
    telling = [verdict for verdict in found if not verdict.behaviour.quiet]
    named = {head.site for verdict in telling for head in verdict.labels}
    sinks = {head.site for verdict in found if verdict.behaviour.quiet for head in verdict.labels} - named
    shown = {rung: {h.site for v in telling for h in v.heads if h.rung >= rung} for rung in (2, 3)}
    total = f"{numbers.count(len(heads))} attention heads"
    if not named:
        text = f"In {total}, none of the {len(telling)} behaviours that were looked for was found."
    else:
        text = f"Of {total}, {len(named)} {_are(named, 'shows', 'show')} a known behaviour"
        tried = {head.site for verdict in telling for head in verdict.labels if head.causal}
        text += (
            f"; of {len(tried)} ablated, {len(shown[2])} {_are(shown[2], 'is', 'are')} shown to be necessary for it"
            if tried
            else ""
        )
        text += f", and losing {len(shown[3])} of these harms little where it does not apply" if shown[3] else ""
        text += "."
    if sinks:
        text += f" {'A further ' if named else ''}{len(sinks)} {_are(sinks, 'rests', 'rest')} on the first token."
    return text


def _are(things: set[str], one: str, many: str) -> str:
    return one if len(things) == 1 else many


def would_have_been_found(verdict: Verdict) -> str:
    """Say how large an effect would have been found, and which unlabelled head came nearest to its floors."""
    needed = [f"{numbers.rounded(least)} on {word(material)}" for material, least in verdict.detectable.items()]
    if not needed:
        return ""
    text = f"A head with an effect of at least {' and '.join(needed)} would be found about nine times in ten."
    nearest = max((head for head in verdict.heads if not head.rung), key=lambda head: head.strength, default=None)
    if nearest is None:
        return text
    scores = nearest.attention.values()
    effects = [f"{numbers.estimate(score.effect, score.low, score.high)} on {word(score.material)}" for score in scores]
    return f"{text} The nearest was {nearest.site}: {', '.join(effects)}."


def kind_of_model(atlas: Atlas) -> str:
    """Say what kind of model this is: family, size, shape."""
    model = atlas.manifest.get("model", {})
    parameters = model.get("parameters")
    size = f" with {_millions(parameters)} parameters" if parameters else ""
    shape = f": {model['layers']} layers of {model['heads']} attention heads" if {"layers", "heads"} <= model.keys() else ""
    grouped = model.get("kv_heads", model.get("heads"))
    shape += f" that share {grouped} sets of keys and values per layer" if shape and grouped != model["heads"] else ""
    return f"A language model of the {model.get('family', 'unknown')} family{size}{shape}."


def what_was_read(atlas: Atlas) -> str:
    """Say on how much text the findings rest."""
    corpus, units = atlas.manifest.get("corpus", {}), atlas.manifest.get("units", {})
    parts = []
    if {"documents", "tokens"} <= corpus.keys():
        parts.append(f"{numbers.count(corpus['documents'])} documents of real text ({numbers.count(corpus['tokens'])} tokens)")
    if "random" in units:
        parts.append(f"{sum(units['random'].values())} sequences of repeated random tokens")
    return f"It was read on {' and '.join(parts)}; one half to discover, the other to confirm." if parts else ""


def _millions(parameters: int) -> str:
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if parameters >= size:
            return f"{numbers.rounded(parameters / size, 3)} {name}"
    return str(parameters)
