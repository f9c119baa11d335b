"""The tables of the page: labels, ablations, and every head with every behaviour, as text and what to sort it by."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from innerworks.show import numbers, verdicts
from innerworks.show.behaviours import RUNGS, word
from innerworks.show.verdicts import Head, Score, Verdict


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


def groups(columns: Sequence[Column]) -> list[Group]:
    """Join neighbouring columns of the same group under one heading."""
    return [Group(title=title, span=len(list(run))) for title, run in groupby(columns, key=lambda column: column.group)]


def labels(verdict: Verdict) -> Table:
    """One row per label: what was scored, and what ablating the head did."""
    materials = list(dict.fromkeys(material for head in verdict.labels for material in head.attention))
    further = {(one.measure, one.material): one for head in verdict.labels for one in head.further}
    measures = [measure for measure in verdicts.CAUSAL if any(head.harm(measure) for head in verdict.labels)]
    columns = [Column(title="head", numeric=False), Column(title="rung")]
    for material in materials:
        columns += [Column(title=title, group=_group(verdict, material)) for title in ("score", "null", "effect [95 %]")]
    for one in further.values():
        columns += [Column(title=title, group=_against([one])) for title in ("score", "null", "effect [95 %]")]
    columns.append(Column(title="q"))
    columns += [_harm_column(verdict.labels, measure) for measure in measures]
    noted = any(head.note for head in verdict.labels)
    columns += [Column(title="note", numeric=False)] if noted else []
    rows = []
    for head in verdict.labels:
        cells = [_site(head), _rung(head)]
        for material in materials:
            cells += _attention(head.attention.get(material))
        for key in further:
            cells += _attention(next((one for one in head.further if (one.measure, one.material) == key), None))
        cells += [_q(head.q), *(_effect(head.harm(measure)) for measure in measures)]
        rows.append((*cells, *([Cell(text=head.note, key=head.note)] if noted else [])))
    return Table(caption=f"Every {verdict.behaviour.title} label", columns=tuple(columns), rows=tuple(rows))


def _group(verdict: Verdict, material: str) -> str:
    return _against([head.attention[material] for head in verdict.labels if material in head.attention])


def _against(scores: Sequence[Score]) -> str:
    floors = " to ".join(
        numbers.constant(floor) for floor in sorted({min(s.floor for s in scores), max(s.floor for s in scores)})
    )
    return f"{word(scores[0].material)}: floor {floors}, null: {scores[0].null_kind}, n\u00a0=\u00a0{scores[0].n}"


def _harm_column(labels: Sequence[Head], measure: str) -> Column:
    units = sorted({score.unit for head in labels for score in head.causal if score.measure == measure})
    group = "ablated: harm − controls [95 %]" if measure != "collateral" else "ablated"
    return Column(title=f"{word(measure)}, {' or '.join(units)}", group=group)


def ablations(verdict: Verdict) -> Table | None:
    """One row per ablation, those without a verdict included."""
    titles = ("head", "measure", "material", "harm", "of controls", "effect [95 %]", "unit")
    titles += ("floor or limit", "q", "n", "mde", "note")
    words = {"head", "measure", "material", "unit", "note"}
    scores = [(head, score) for head in (*verdict.heads, *verdict.groups) for score in head.causal]
    if not scores:
        return None
    rows = tuple(_ablation(head, score) for head, score in scores)
    columns = tuple(Column(title=title, numeric=title not in words) for title in titles)
    return Table(caption=f"Every ablation tried for {verdict.behaviour.title}", columns=columns, rows=rows)


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


def every(found: Sequence[Verdict]) -> dict[str, Any]:
    """All heads x behaviours for the script: rows are `[behaviour, rung, cell, ...]`, a cell is `[key, text]`."""
    materials = list(dict.fromkeys(m for verdict in found for head in verdict.heads[:1] for m in head.attention))
    measures = [measure for measure in verdicts.CAUSAL if any(head.harm(measure) for v in found for head in v.heads)]
    columns = [["head", False], ["behaviour", False], ["rung", True]]
    columns += [[f"effect, {word(material)} [95 %]", True] for material in materials]
    columns += [["q", True], *([word(measure), True] for measure in measures)]
    rows = []
    for verdict in found:
        for head in verdict.heads:
            title = verdict.behaviour.title
            cells = [_site(head), Cell(text=title, key=title), _rung(head)]
            cells += [_effect(head.attention.get(material)) for material in materials]
            cells += [_q(head.q), *(_effect(head.harm(measure), with_unit=True) for measure in measures)]
            rows.append([head.behaviour, head.rung, *([cell.key, cell.text] for cell in cells)])
    return {"columns": columns, "rows": rows}


def _site(head: Head) -> Cell:
    key = None if head.layer is None else head.layer + (head.index or 0) / 1e4
    return Cell(text=head.site, key=key)


def _rung(head: Head) -> Cell:
    return Cell(text=f"{head.rung} {RUNGS[head.rung]}" if head.rung else "–", key=head.rung)


def _attention(score: Score | None) -> list[Cell]:
    if score is None:
        return [_number(None)] * 3
    return [_number(score.value), _number(score.null), _effect(score)]


def _effect(score: Score | None, *, with_unit: bool = False) -> Cell:
    if score is None or not numbers.known(score.effect):
        return Cell(text=numbers.NOTHING, key=None)
    text = numbers.estimate(score.effect, score.low, score.high)
    unit = {"probability": "", "nats": " nats"}.get(score.unit, f" {score.unit}") if with_unit else ""
    bound = "limit" if score.measure == "collateral" else "floor"
    return Cell(
        text=text + unit,
        key=_short(score.effect),
        title=f"{bound} {numbers.rounded(score.bound)}, q {numbers.q_value(score.q)}",
    )


def _number(value: float | None) -> Cell:
    return Cell(text=numbers.rounded(value), key=_short(value))


def _q(q: float | None) -> Cell:
    return Cell(text=numbers.q_value(q), key=_short(q))


def _short(value: float | None) -> float | None:
    return float(f"{value:.4g}") if value is not None and numbers.known(value) else None
