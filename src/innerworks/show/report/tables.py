"""The tables of the page: labels, ablations, facts, as text and what to sort it by."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from innerworks.show import numbers
from innerworks.show.behaviours import RUNGS, behaviour_of
from innerworks.show.facts import Facts, place
from innerworks.show.measures import CAUSAL, word
from innerworks.show.verdicts import Head, Kindred, Score, Series

FACTS_SHOWN, LABELS_SHOWN = 60, 100  # rows


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A table's cell: what is printed, and by what it sorts (a number, or None for nothing: always last)."""

    text: str
    key: int | float | str | None
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A table's column; columns with the same group share a heading above theirs."""

    title: str
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True, kw_only=True)
class Group:
    """A heading above several columns, or an empty one above those that have none."""

    title: str
    span: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that sorts by its headings."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int = 0  # rows: the weakest


def groups(columns: Sequence[Column]) -> list[Group]:
    """Join neighbouring columns of the same group under one heading."""
    return [Group(title=title, span=len(list(run))) for title, run in groupby(columns, key=lambda column: column.group)]


def labels(one: Kindred) -> Table:
    """One row per label: what was scored, and what ablating the head did. Of a family, the first column names the member."""
    series = _series(one.labels)
    measures = [measure for measure in CAUSAL if any(head.harm(measure) for head in one.labels)]
    columns = [Column(title=(one.behaviour.members or ("",))[0], numeric=False)] if one.is_family else []
    columns += [Column(title=one.part[0], numeric=False), Column(title="rung")]
    for scores in series.values():
        columns += [Column(title=title, group=_against(scores)) for title in ("score", "null", "effect [95 %]")]
    columns.append(Column(title="q"))
    columns += [_harm_column(one.labels, measure) for measure in measures]
    noted = any(head.note for head in one.labels)
    columns += [Column(title="note", numeric=False)] if noted else []
    rows = []
    for head in one.labels[:LABELS_SHOWN]:
        cells = [Cell(text=head.title, key=head.title)] if one.is_family else []
        cells += [_site(head), _rung(head)]
        for key in series:
            cells += _scored(next((score for score in head.seen if score.series == key), None))
        cells += [_q(head.q), *(_effect(head.harm(measure)) for measure in measures)]
        rows.append((*cells, *([Cell(text=head.note, key=head.note)] if noted else [])))
    left_out = len(one.labels) - len(rows)
    return Table(caption=f"Labels: {one.behaviour.title}", columns=tuple(columns), rows=tuple(rows), left_out=left_out)


def _series(heads: Sequence[Head]) -> dict[Series, list[Score]]:
    """What was scored of these heads, apart from ablations and partners; what labels rest on comes first."""
    found: dict[Series, list[Score]] = {}
    for score in (score for head in heads for score in head.seen):
        found.setdefault(score.series, []).append(score)
    return found


def _against(scores: Sequence[Score]) -> str:
    floors = " to ".join(
        numbers.constant(floor) for floor in sorted({min(s.floor for s in scores), max(s.floor for s in scores)})
    )
    first = scores[0]
    what = "" if first.measure == "attention" else f"{first.about.title}, "
    counted = sorted({score.n for score in scores})
    n = f", n\u00a0=\u00a0{counted[0]}{f' to {counted[-1]}' if len(counted) > 1 else ''}" if counted[-1] > 1 else ""
    return f"{what}{word(first.material)}: floor {floors}, null: {first.null_kind}{n}"


def _harm_column(labels: Sequence[Head], measure: str) -> Column:
    units = sorted({score.unit for head in labels for score in head.causal if score.measure == measure})
    group = "ablated: harm − controls [95 %]" if measure != "collateral" else "ablated"
    return Column(title=f"{word(measure)}, {' or '.join(units)}", group=group)


def ablations(one: Kindred) -> Table | None:
    """One row per ablation, those without a verdict included."""
    titles = (one.part[0], "measure", "material", "harm", "of controls", "effect [95 %]", "unit")
    titles += ("floor or limit", "q", "n", "mde", "note")
    words = {one.part[0], "measure", "material", "unit", "note"}
    scores = [(head, score) for head in (*one.heads, *one.groups) for score in head.causal]
    if not scores:
        return None
    rows = tuple(_ablation(head, score) for head, score in scores)
    columns = tuple(Column(title=title, numeric=title not in words) for title in titles)
    return Table(caption=f"Every ablation tried: {one.behaviour.title}", columns=columns, rows=rows)


def _ablation(head: Head, score: Score) -> tuple[Cell, ...]:
    note = "; ".join(part for part in (score.note, f"group: {score.target}" if score.target else "") if part)
    words = (word(score.measure), word(score.material))
    return (
        _site(head),
        *(Cell(text=word, key=word) for word in words),
        _number(score.raw),
        _number(score.compared),
        _effect(score),
        Cell(text=score.unit, key=score.unit),
        _number(score.bound),
        _q(score.q),
        Cell(text=str(score.n), key=score.n),
        _number(score.mde),
        Cell(text=note, key=note),
    )


def told(one: Facts) -> Table:
    """The strongest rows of what is no label, those above their floors first."""
    titles = ("where", "measured", "on", "score", "null", "effect [95 %]", "unit", "floor", "q", "n", "note")
    words = {"where", "measured", "on", "unit", "note"}
    shown = one.scores[:FACTS_SHOWN]
    kept = [title for title in titles if title != "note" or any(score.note for score in shown)]
    rows = tuple(_told(score, noted="note" in kept) for score in shown)
    columns = tuple(Column(title=title, numeric=title not in words) for title in kept)
    caption = f"Everything measured: {one.behaviour.title}"
    return Table(caption=caption, columns=columns, rows=rows, left_out=len(one.scores) - len(rows))


def _told(score: Score, *, noted: bool) -> tuple[Cell, ...]:
    kind = behaviour_of(score.behaviour)
    measured = score.about.title if kind.told or kind.family else f"{kind.title}, {score.about.title}"
    return (
        Cell(text=place(score), key=place(score)),
        Cell(text=measured, key=measured),
        Cell(text=word(score.material), key=score.material),
        _number(score.raw),
        _number(score.compared),
        _effect(score),
        Cell(text=score.unit, key=score.unit),
        Cell(text=numbers.constant(score.floor), key=_short(score.floor)),
        _q(score.q),
        Cell(text=str(score.n), key=score.n),
        *([Cell(text=score.note, key=score.note)] if noted else []),
    )


def _site(head: Head) -> Cell:
    key = None if head.layer is None else head.layer + (head.index or 0) / 1e6
    return Cell(text=head.site, key=key)


def _rung(head: Head) -> Cell:
    return Cell(text=f"{head.rung} {RUNGS[head.rung]}" if head.rung else "–", key=head.rung)


def _scored(score: Score | None) -> list[Cell]:
    if score is None:
        return [_number(None)] * 3
    return [_number(score.value), _number(score.null), _effect(score)]


def _effect(score: Score | None) -> Cell:
    if score is None or not numbers.known(score.effect):
        return Cell(text=numbers.NOTHING, key=None)
    text = numbers.estimate(score.effect, score.low, score.high)
    bound = "limit" if score.measure == "collateral" else "floor"
    return Cell(
        text=text,
        key=_short(score.effect),
        title=f"{bound} {numbers.rounded(score.bound)}, q {numbers.q_value(score.q)}",
    )


def _number(value: float | None) -> Cell:
    return Cell(text=numbers.rounded(value), key=_short(value))


def _q(q: float | None) -> Cell:
    return Cell(text=numbers.q_value(q), key=_short(q))


def _short(value: float | None) -> float | None:
    return float(f"{value:.4g}") if value is not None and numbers.known(value) else None
