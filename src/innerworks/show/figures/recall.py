"""A figure of recall: how much of each kind of head is found, over its strength or over noise.

`recall` draws the rows of `phantoms.curves.Curves.rows` (planted heads) or `phantoms.spike.SpikeIns.rows` (a kind mixed into real
heads): one small panel per kind, exact intervals as a band, and the levels at which half and nine tenths are found to be read
off against two lines.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from innerworks.show.behaviours import behaviour_of
from innerworks.show.figures.heads import FAINT, _faded, plain

ACROSS = 4  # panels side by side
AXES = {"amplitude": ("strength", "log"), "noise": ("noise", "linear")}
SHARES = (0.5, 0.9)


def recall(rows: Sequence[Mapping[str, Any]], *, over: str = "amplitude") -> go.Figure:
    """Show recall by kind over `amplitude` or `noise`.

    rows: with `kind over level recall low high found planted`. Strength lies on a logarithmic axis.
    """
    mine = [row for row in rows if row["over"] == over]
    kinds = list(dict.fromkeys(str(row["kind"]) for row in mine))
    down = max(1, -(-len(kinds) // ACROSS))
    titles = [behaviour_of(kind).title for kind in kinds]
    figure = make_subplots(rows=down, cols=ACROSS, subplot_titles=titles, shared_xaxes=True, shared_yaxes=True)
    for number, kind in enumerate(kinds):
        curve = sorted((row for row in mine if row["kind"] == kind), key=lambda row: row["level"])
        row, column = number // ACROSS + 1, number % ACROSS + 1
        figure.add_traces(_lines(curve), rows=row, cols=column)
        figure.add_traces(_curve(curve, behaviour_of(kind).colour), rows=row, cols=column)
    name, scale = AXES[over]
    figure.update_xaxes(type=scale, showgrid=False)
    if scale == "log":
        levels = sorted({row["level"] for row in mine})
        figure.update_xaxes(tickvals=levels, ticktext=[f"{level:g}" for level in levels])
    for column in range(1, ACROSS + 1):
        figure.update_xaxes(title=name, row=down, col=column)
    figure.update_yaxes(range=[-0.04, 1.04], tickvals=[0, 0.5, 0.9, 1], showgrid=False)
    figure.update_annotations(font={"size": 11})
    plain(figure, height=120 * down + 80)
    return figure.update_layout(showlegend=False, margin={"t": 28})


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[go.Scatter]:
    """Half and nine tenths."""
    ends = [min(row["level"] for row in rows), max(row["level"] for row in rows)]
    line = {"color": FAINT, "width": 1, "dash": "dot"}
    return [go.Scatter(x=ends, y=[share, share], mode="lines", line=line, hoverinfo="skip") for share in SHARES]


def _curve(rows: Sequence[Mapping[str, Any]], colour: str) -> list[go.Scatter]:
    """The band of intervals, and the line."""
    levels = [row["level"] for row in rows]
    band = go.Scatter(
        x=[*levels, *reversed(levels)],
        y=[*(row["high"] for row in rows), *(row["low"] for row in reversed(rows))],
        fill="toself",
        fillcolor=_faded(colour, 0.18),
        line={"width": 0},
        hoverinfo="skip",
    )
    line = go.Scatter(
        x=levels,
        y=[row["recall"] for row in rows],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5, "color": colour},
        customdata=[[row["found"], row["planted"]] for row in rows],
        hovertemplate="%{x:g}: %{customdata[0]} of %{customdata[1]} found<extra></extra>",
    )
    return [band, line]
