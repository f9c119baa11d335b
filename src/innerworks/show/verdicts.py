"""What was found and what was not: findings gathered by behaviour and head (or neuron), counted by rung, put into words.

1. Rows of the same behaviour and head are gathered into one `Head`: what its label rests on, what else was scored, and what
   ablating it did. A label is a row at rung 1 or higher, whatever was measured.
2. The heads of one behaviour make a `Verdict`: counts by rung, and the smallest effect that would have been found.
3. Verdicts of one family (syntactic relations, domains) make a `Kindred`; every other verdict stands for itself.
4. A verdict is said in one sentence that claims no more than its rungs: *seen*, *necessary*, *selective*, *not found*.

All of it holds for feed-forward neurons, too: `verdicts(findings, "neurons")`; a `Head` is then a neuron. Of the many neurons
only candidates have rows, and `ceilings` bound all the others.

What is told of heads without being a label (sinks that give way, composition) is in `facts.py`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import polars as pl

from innerworks.atlas import Atlas
from innerworks.show import numbers
from innerworks.show.behaviours import BEHAVIOURS, Behaviour, behaviour_of, in_order
from innerworks.show.measures import Measure, measure_of, where
from innerworks.stats import CONSTANTS

Series = tuple[str, str]  # (measure, material)
LEVEL = CONSTANTS.level
CEILING = "ceiling"  # the measure of rows that bound the effects of all parts together
PARTS = {"heads": ("head", "heads"), "neurons": ("neuron", "neurons")}  # chapter -> how its parts are called, one and several


@dataclass(frozen=True, kw_only=True)
class Score:
    """One finding: a score, its null, and the effect (score minus null) with its 95 % interval over documents.

    Harm elsewhere (`collateral`) is told otherwise: its effect is the harm itself, its null the limit up to which it
    counts as little, its value the ratio of harm to harm elsewhere, its floor the ratio that is asked for.
    """

    behaviour: str
    site: str
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
    p: float | None
    q: float | None
    rung: int
    note: str
    target: str | None
    ablation: str

    @property
    def about(self) -> Measure:
        """What its measure is, in words."""
        return measure_of(self.measure, behaviour=self.behaviour, material=self.material, ablation=self.ablation)

    @property
    def stands_out(self) -> bool:
        """Is it above its floor, by its test (q, or p where nothing else was tested beside it)? What was not tested does not."""
        tested = self.q if self.q is not None else self.p
        return numbers.known(self.effect) and self.effect > self.floor and tested is not None and tested <= LEVEL

    def beyond(self, number: float) -> bool:
        """Is this more than such a score can be? A share is 1 at most, whatever its estimate: a bound above says nothing."""
        return self.unit.startswith("share") and number > 1

    @property
    def series(self) -> Series:
        """What it shares with the same score of other heads."""
        return self.measure, self.material

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
    """One head or neuron (or, for joint harm, one group) measured for one behaviour. Rung 0: measured, not labelled."""

    behaviour: str
    site: str
    layer: int | None
    index: int | None
    rung: int
    q: float | None
    note: str
    scores: tuple[Score, ...]  # all of them, in the order of the findings
    decides: frozenset[Series]  # what a label of this behaviour must pass

    @property
    def title(self) -> str:
        """How its behaviour is called."""
        return behaviour_of(self.behaviour).title

    @property
    def causal(self) -> tuple[Score, ...]:
        """What told whether it is necessary and selective."""
        return tuple(score for score in self.scores if score.about.tries)

    @property
    def partners(self) -> tuple[Score, ...]:
        """What it does together with others."""
        return tuple(score for score in self.scores if score.about.question == "partners")

    @property
    def seen(self) -> tuple[Score, ...]:
        """All else: what its label rests on first."""
        apart = {*self.causal, *self.partners}
        return tuple(sorted((one for one in self.scores if one not in apart), key=lambda one: one.series not in self.decides))

    @property
    def deciding(self) -> tuple[Score, ...]:
        """What its label must pass: each measure on each material, and against each null."""
        return tuple(score for score in self.scores if score.series in self.decides)

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
    groups: tuple[Head, ...] = ()  # ablations that have no single head, and what is said of the whole model
    chapter: str = "heads"

    @property
    def part(self) -> tuple[str, str]:
        """How its parts are called, one and several."""
        return PARTS[self.chapter]

    @property
    def ceilings(self) -> tuple[Score, ...]:
        """The largest effect that any part may have by each measure, chosen or not."""
        return tuple(score for group in self.groups for score in group.scores if score.measure == CEILING)

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
        found: dict[str, float] = {}
        for score in (score for head in self.heads for score in head.deciding):
            if score.mde is not None and numbers.known(score.mde) and not score.beyond(score.mde):
                found[score.material] = max(score.mde, found.get(score.material, score.mde))
        return found


@dataclass(frozen=True, kw_only=True)
class Kindred:
    """Verdicts that are told together: one behaviour, or all members of a family."""

    behaviour: Behaviour
    verdicts: tuple[Verdict, ...]

    @property
    def is_family(self) -> bool:
        """Does it have members?"""
        return self.behaviour.members is not None

    @property
    def labels(self) -> tuple[Head, ...]:
        """All labels, the highest rung first, then the strongest."""
        labels = [head for verdict in self.verdicts for head in verdict.labels]
        return tuple(sorted(labels, key=lambda head: (-head.rung, -head.strength))) if self.is_family else tuple(labels)

    @property
    def heads(self) -> tuple[Head, ...]:
        """Everything measured, labelled or not."""
        return tuple(head for verdict in self.verdicts for head in verdict.heads)

    @property
    def groups(self) -> tuple[Head, ...]:
        """Ablations that have no single head."""
        return tuple(head for verdict in self.verdicts for head in verdict.groups)

    @property
    def tried(self) -> int:
        """How many labels were ablated."""
        return sum(verdict.tried for verdict in self.verdicts)

    @property
    def part(self) -> tuple[str, str]:
        """How its parts are called, one and several."""
        return self.verdicts[0].part

    def at_least(self, rung: int) -> int:
        """How many heads reached this rung; of a family, how many of its members have such a head."""
        counts = [verdict.at_least(rung) for verdict in self.verdicts]
        return sum(map(bool, counts)) if self.is_family else sum(counts)

    @property
    def sites(self) -> set[str]:
        """The labelled heads, each once."""
        return {head.site for head in self.labels}


Gathered = pl.DataFrame | Sequence["Verdict"]  # a table of findings, or what was gathered from one before


def of_behaviour(findings: Gathered, name: str) -> list[Verdict]:
    """Return the verdict on one behaviour, or those on all members of a family (`syntactic`)."""
    if isinstance(findings, pl.DataFrame):
        findings = findings.filter((pl.col("behaviour") == name) | pl.col("behaviour").str.starts_with(f"{name}:"))
    return [one for one in verdicts(findings) if name in (one.behaviour.name, one.behaviour.family)]


def verdicts(findings: Gathered, chapter: str = "heads") -> list[Verdict]:
    """Gather the findings about heads, or those of another chapter, by behaviour, in the order in which they are told."""
    if not isinstance(findings, pl.DataFrame):
        return list(findings)
    rows: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    places: dict[str, tuple[int | None, int | None]] = {}
    labels: dict[tuple[str, str], dict] = {}
    mine = findings.filter((pl.col("chapter") == chapter) & ~_told_otherwise())
    for row in mine.iter_rows(named=True):
        rows[row["behaviour"]][row["site"]].append(score_of(row))
        places[row["site"]] = row["layer"], row["index"]
        key = row["behaviour"], row["site"]
        if row["target"] is None and row["rung"] > labels.get(key, {"rung": 0})["rung"]:  # of a pair, it is that of the label
            labels[key] = row
    result = []
    for behaviour in in_order(list(rows)):
        by_site = rows[behaviour.name]
        decides = _deciding([score for scores in by_site.values() for score in scores])
        gathered = [
            _head(behaviour.name, site, places[site], labels.get((behaviour.name, site)), scores, decides)
            for site, scores in by_site.items()
        ]
        gathered.sort(key=lambda head: (-head.rung, -head.strength, head.layer or 0, head.index or 0))
        single, groups = (tuple(head for head in gathered if (head.index is None) == none) for none in (False, True))
        one = Verdict(behaviour=behaviour, heads=single, groups=groups, chapter=chapter)
        if any(head.deciding for head in single) or one.ceilings:  # only what could be a label is a kind of head
            result.append(one)
    return result


def kindred(found: Sequence[Verdict]) -> list[Kindred]:
    """Put the members of families together, in the order in which they are told."""
    return [
        Kindred(behaviour=behaviour_of(kin), verdicts=tuple(group))
        for kin, group in groupby(found, key=lambda verdict: verdict.behaviour.kin)
    ]


def _told_otherwise() -> pl.Expr:
    """Rows that are facts and no kind of head (`facts.py`)."""
    names = [name for name, behaviour in BEHAVIOURS.items() if behaviour.told]
    return pl.col("behaviour").str.split(":").list.first().is_in(names)


def _deciding(scores: Sequence[Score]) -> frozenset[Series]:
    """What labels of a behaviour rest on: of the measures that can decide, those that were put to the test anywhere."""
    can = [score for score in scores if score.about.decides and score.target is None]
    tested = {score.series for score in can if score.q is not None}
    return frozenset(tested or {score.series for score in can})


def _head(
    behaviour: str,
    site: str,
    place: tuple[int | None, int | None],
    label: dict | None,
    scores: Sequence[Score],
    decides: frozenset[Series],
) -> Head:
    resting = [score for score in scores if score.series in decides and score.target is None]
    return Head(
        behaviour=behaviour,
        site=site,
        layer=place[0],
        index=place[1],
        rung=label["rung"] if label else 0,
        q=label["q"] if label else next((score.q for score in resting), None),
        note=_shared(score.note for score in resting),
        scores=tuple(scores),
        decides=decides,
    )


def _shared(notes: Iterable[str]) -> str:
    """What all notes say: that is about the label, the rest about one measure."""
    parts = [note.split("; ") for note in notes]
    return "; ".join(part for part in parts[0] if all(part in others for others in parts)) if parts else ""


_SAME = (
    "behaviour", "site", "measure", "material", "unit", "value", "null", "null_kind", "floor", "effect", "n", "mde", "p", "q",
    "rung", "note", "target", "ablation",
)  # fmt: skip


def score_of(row: dict) -> Score:
    """One row of the findings."""
    return Score(**{name: row[name] for name in _SAME}, low=row["effect_low"], high=row["effect_high"])


# --- in words ----------------------------------------------------------------------------------------------------


def sentence(verdict: Verdict | Kindred) -> str:
    """Say in one sentence what is claimed of one behaviour, no more than its rungs allow."""
    if isinstance(verdict, Kindred):
        return _of_family(verdict) if verdict.is_family else sentence(verdict.verdicts[0])
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


def _of_family(family: Kindred) -> str:
    one, several = family.behaviour.members or ("", "")
    total, found = len(family.verdicts), family.at_least(1)
    if not found:
        undecided = [verdict.undecided for verdict in family.verdicts if verdict.undecided]
        if len(undecided) == total:
            return f"Not decided: {undecided[0]}."
        return f"No {family.behaviour.singular} was found, for any of {total} {several if total > 1 else one}."
    heads = len(family.sites)
    part, parts = family.part
    of_its_own = f"has a {part} of its own" if found == 1 else f"have {parts} of their own"
    text = f"{found} of {total} {several if total > 1 else one} {of_its_own} ({heads} {part if heads == 1 else parts} in all)"
    necessary = len({head.site for head in family.labels if head.rung >= 2})
    if family.tried:
        text += f"; {necessary or 'none'} of them {'is' if necessary < 2 else 'are'} shown to be necessary"
    return text + "."


def headline(found: Sequence[Verdict]) -> str:
    """Say in two sentences what the whole scan of the heads found."""
    heads = {head.site for verdict in found for head in verdict.heads}
    telling = [verdict for verdict in found if not verdict.behaviour.quiet]
    named = {head.site for verdict in telling for head in verdict.labels}
    sinks = {head.site for verdict in found if verdict.behaviour.quiet for head in verdict.labels} - named
    shown = {rung: {h.site for v in telling for h in v.heads if h.rung >= rung} for rung in (2, 3)}
    total = f"{numbers.count(len(heads))} attention heads"
    if not named:
        text = f"In {total}, none of the {len(kindred(telling))} behaviours that were looked for was found."
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


def would_have_been_found(verdict: Verdict | Kindred) -> str:
    """Say how large an effect would have been found, and which unlabelled head came nearest to its floors."""
    if isinstance(verdict, Kindred):
        if not verdict.is_family:
            return would_have_been_found(verdict.verdicts[0])
        nearest = max(verdict.verdicts, key=lambda one: max((head.strength for head in one.heads), default=0.0))
        return f"Nearest of all came {nearest.behaviour.title}. {would_have_been_found(nearest)}"
    if verdict.ceilings:
        return _none_above(verdict)
    needed = [f"{numbers.rounded(least)} {where(material)}" for material, least in verdict.detectable.items()]
    if not needed:
        return ""
    text = f"A {verdict.part[0]} with an effect of at least {' and '.join(needed)} would be found about nine times in ten."
    nearest = max((head for head in verdict.heads if not head.rung), key=lambda head: head.strength, default=None)
    if nearest is None:
        return text
    effects = [
        f"{numbers.estimate(score.effect, score.low, score.high)} {where(score.material)}"
        for score in nearest.deciding
        if score.measure == nearest.deciding[0].measure or score.material != nearest.deciding[0].material
    ]
    return f"{text} The nearest{' without a label' if verdict.labels else ''} was {nearest.site}: {', '.join(effects)}."


def _none_above(verdict: Verdict) -> str:
    """Say how large the effect of any part may at most be, by each measure, and what most of them would have shown."""
    said = []
    for score in verdict.ceilings:
        if score.beyond(score.high):
            said.append(f"{where(score.material)} no effect is excluded (floor {numbers.constant(score.floor)})")
            continue
        seen = f", and nine in ten would show one of {numbers.rounded(score.mde)}" if numbers.known(score.mde) else ""
        bound, unit = numbers.rounded(score.high), f" {score.unit}" if score.unit else ""
        said.append(f"{where(score.material)} none has more than {bound}{unit} (floor {numbers.constant(score.floor)}){seen}")
    return f"Of all {verdict.part[1]}, {'; '.join(said)}."


def headline_of_neurons(found: Sequence[Verdict], total: int) -> str:
    """Say in one sentence what the scan of the neurons found. total: how many neurons there are."""
    labelled = {rung: {head.site for verdict in found for head in verdict.heads if head.rung >= rung} for rung in (1, 2, 3)}
    of = f"{numbers.count(total)} feed-forward neurons" if total else "the feed-forward neurons"
    if not labelled[1]:
        return f"In {of}, none of the {len(kindred(found))} kinds that were looked for was found."
    text = f"Of {of}, {numbers.count(len(labelled[1]))} {_are(labelled[1], 'is', 'are')} of a known kind"
    tried = {head.site for verdict in found for head in verdict.labels if head.causal}
    text += (
        f"; of {len(tried)} ablated, {len(labelled[2])} {_are(labelled[2], 'is', 'are')} shown to be necessary" if tried else ""
    )
    return text + (f", {len(labelled[3])} of them also selective." if labelled[3] else ".")


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
