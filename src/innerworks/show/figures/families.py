"""Figures of what comes in families or pairs: the best heads of every syntactic relation or domain; the strongest partners.

`best_of_each` one row per member of a family · `strongest` one row per pair, or per head and kind.
"""

import html
from collections.abc import Sequence

import plotly.graph_objects as go

from innerworks.show import numbers
from innerworks.show.behaviours import behaviour_of
from innerworks.show.facts import Facts, place
from innerworks.show.figures.heads import FAINT, INK, LINE, plain
from innerworks.show.measures import measure_of, word
from innerworks.show.verdicts import Gathered, Score, of_behaviour

OTHERS = 4  # heads beside the best one of each row


def best_of_each(findings: Gathered, family: str, *, measure: str, material: str = "text", most: int = 40) -> go.Figure:
    """Show the best heads of every member of a family: of each syntactic relation, of each domain.

    One row per member, the strongest on top. x: effect (score minus null). The best head is a mark with its 95 % interval,
    full where it is labelled, with its name beside it; the next ones are faint points. The dashed line is the floor.
    """
    found = of_behaviour(findings, family)
    rows: list[tuple[str, list[tuple[Score, int]]]] = []
    for verdict in found:
        scores = [(s, head.rung) for head in verdict.heads for s in head.scores if s.series == (measure, material)]
        scores = sorted((pair for pair in scores if numbers.known(pair[0].effect)), key=lambda pair: (-pair[1], -pair[0].effect))
        if scores:
            rows.append((verdict.behaviour.title, scores))
    rows = sorted(rows, key=lambda row: (min(row[1][0][1], 1), row[1][0][0].effect))[-most:]
    colour = behaviour_of(family).colour
    figure = go.Figure()
    others = [(score, i) for i, (_, scores) in enumerate(rows) for score, _ in scores[1 : 1 + OTHERS]]
    figure.add_trace(_others(others))
    if rows:
        figure.add_trace(_best([scores[0] for _, scores in rows], colour))
        figure.add_trace(_names([scores[0] for _, scores in rows]))
    _axes(figure, [title for title, _ in rows], sorted({scores[0][0].floor for _, scores in rows}), _unit(rows, measure))
    return plain(figure, height=92 + 21 * max(len(rows), 1))


def _others(points: Sequence[tuple[Score, int]]) -> go.Scatter:
    return go.Scatter(
        x=[float(f"{score.effect:.4g}") for score, _ in points],
        y=[row for _, row in points],
        mode="markers",
        marker={"size": 5, "color": FAINT, "opacity": 1, "line": {"width": 0}},
        text=[html.escape(score.site) for score, _ in points],
        customdata=[score.site for score, _ in points],
        hovertemplate="<b>%{text}</b> %{x:.3f}<extra></extra>",
        showlegend=False,
    )


def _best(best: Sequence[tuple[Score, int]], colour: str) -> go.Scatter:
    return go.Scatter(
        x=[score.effect for score, _ in best],
        y=list(range(len(best))),
        mode="markers",
        error_x=_error([score for score, _ in best], colour),
        marker={
            "size": 9,
            "symbol": ["circle" if rung else "circle-open" for _, rung in best],
            "color": colour,
            "line": {"width": 1.6, "color": colour},
        },
        customdata=[score.site for score, _ in best],
        hoverinfo="text",
        hovertext=[_text(score) for score, _ in best],
        showlegend=False,
    )


def _names(best: Sequence[tuple[Score, int]]) -> go.Scatter:
    """Which head it is, right of its interval."""
    ends = [score.high if numbers.known(score.high) else score.effect for score, _ in best]
    return go.Scatter(
        x=ends,
        y=list(range(len(best))),
        mode="text",
        text=[f" {html.escape(score.site)}" for score, _ in best],
        textposition="middle right",
        textfont={"size": 10, "color": INK},
        customdata=[score.site for score, _ in best],
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )


def _error(scores: Sequence[Score], colour: str) -> dict[str, object]:
    known = [numbers.known(score.low) and numbers.known(score.high) for score in scores]
    return {
        "type": "data",
        "visible": any(score.high > score.low for score in scores),
        "symmetric": False,
        "array": [score.high - score.effect if has else 0.0 for score, has in zip(scores, known, strict=True)],
        "arrayminus": [score.effect - score.low if has else 0.0 for score, has in zip(scores, known, strict=True)],
        "thickness": 1.4,
        "width": 3,
        "color": colour,
    }


def _axes(figure: go.Figure, names: Sequence[str], floors: Sequence[float], title: str) -> None:
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    for floor in floors:
        figure.add_vline(x=floor, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_xaxes(title=title, gridcolor=LINE)
    ticks = {"tickvals": list(range(len(names))), "ticktext": [html.escape(name) for name in names], "tickfont_size": 11}
    figure.update_yaxes(**ticks, range=[-0.7, max(len(names), 1) - 0.3], showgrid=False)


def _unit(rows: Sequence[tuple[str, list[tuple[Score, int]]]], measure: str) -> str:
    units = sorted({score.unit for _, scores in rows for score, _ in scores})
    return f"{measure_of(measure).title} − null ({' or '.join(units)})" if units else measure_of(measure).title


def _text(score: Score) -> str:
    lines = [
        f"<b>{html.escape(place(score))}</b> {html.escape(behaviour_of(score.behaviour).title)}",
        f"{score.about.title}, {word(score.material)}",
        f"effect {numbers.estimate(score.effect, score.low, score.high)} {html.escape(score.unit)}",
        f"score {numbers.rounded(score.value)}, null {numbers.rounded(score.null)} ({html.escape(score.null_kind)})",
        f"floor {numbers.constant(score.floor)}, n = {score.n}, q {numbers.q_value(score.q)}",
    ]
    return "<br>".join(lines)


def strongest(told: Facts, *, measure: str, material: str, behaviour: str, most: int = 15) -> go.Figure:
    """Show the strongest rows of what is no label: pairs of heads, sinks that give way, layers.

    One row each, with its 95 % interval; full where it stands out from its floor, the dashed line.
    """
    mine = [s for s in told.scores if (s.behaviour, *s.series) == (behaviour, measure, material) and numbers.known(s.effect)]
    shown = sorted(mine, key=lambda score: score.effect)[-most:]
    figure = go.Figure()
    if shown:
        colour = told.behaviour.colour
        figure.add_trace(_best([(score, int(score.stands_out)) for score in shown], colour))
    unit = " or ".join(sorted({score.unit for score in shown}))
    _axes(figure, [place(score) for score in shown], sorted({score.floor for score in shown}), f"score − null ({unit})")
    return plain(figure, height=92 + 21 * max(len(shown), 1))
