"""Figures of composition: whose output does an induction head read?

`falls` what each induction head loses without what an earlier head wrote, in its keys and in its queries, against controls ·
`who_feeds_whom` the same as a map, senders by receivers, controls included. Both are drawn from what the study `composition`
leaves in an atlas: its findings, and its arrays `match/RECEIVER/HOW/SENDER`.
"""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from innerworks.show import numbers
from innerworks.show.behaviours import behaviour_of
from innerworks.show.figures.heads import FAINT, INK, LINE, plain

TOGETHER = "all together"
SIDES = (("k_composition", "in its keys", "circle"), ("q_composition", "in its queries", "circle-open"))
Matches = Mapping[str, np.ndarray]


def falls(findings: pl.DataFrame, matches: Matches) -> go.Figure:
    """Show what induction heads lose of their match without each previous-token head's output, in their keys alone.

    A panel per receiver; x: how much attention mass on its target it loses, with the 95 % interval over sequences; filled:
    removed from its keys, open: from its queries. The grey band reaches from the least to the most that a single control head
    costs in the keys, the dashed line is the controls' mean plus the floor: what lies right of both counts.
    """
    rows = findings.filter(pl.col("measure").is_in([measure for measure, _, _ in SIDES]))
    receivers = list(rows.filter(pl.col("measure") == "k_composition")["site"].unique(maintain_order=True))
    if not receivers:
        return _nothing()
    names = _senders(rows)
    titles = [f"<b>{html.escape(site)}</b>, match {_clean(matches, site):.2f}" for site in receivers]
    figure = make_subplots(rows=1, cols=len(receivers), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles)
    for column, site in enumerate(receivers, start=1):
        mine = rows.filter(pl.col("site") == site)
        _bounds(figure, mine, matches, site, column)
        for measure, says, mark in SIDES:
            shown = mine.filter(pl.col("measure") == measure)
            figure.add_trace(_dots(shown, names, says=says, mark=mark, key=column == 1), row=1, col=column)
    figure = plain(figure, height=170 + 24 * len(names))
    figure.update_xaxes(gridcolor=LINE, range=[-0.12, 1.04], tickvals=[0, 0.5, 1], zeroline=True, zerolinecolor=INK)
    figure.update_xaxes(title="attention lost", col=1)
    places = list(range(len(names)))
    figure.update_yaxes(tickvals=places, ticktext=names[::-1], range=[-0.6, len(names) - 0.4], showgrid=False)
    return figure.update_layout(
        margin={"t": 62, "l": 8, "r": 10, "b": 8}, legend={"y": 1.0, "yref": "container", "yanchor": "top"}
    )


def who_feeds_whom(findings: pl.DataFrame, matches: Matches) -> go.Figure:
    """Show who feeds whom: what each induction head (column) loses without what an earlier head (row) wrote in its keys alone.

    Labelled previous-token heads first, by layer; below the line their controls. Stronger colour = more attention lost; blank =
    not asked of this pair.
    """
    lost = _lost(matches)
    receivers = sorted({receiver for receiver, _ in lost}, key=_order)
    if not receivers:
        return _nothing()
    labelled = {name for name in _senders(findings.filter(pl.col("measure") == "k_composition")) if name != TOGETHER}
    asked = sorted({sender for _, sender in lost}, key=lambda name: (name not in labelled, _order(name)))
    z = [[lost.get((receiver, sender), np.nan) for receiver in receivers] for sender in asked]
    colour = behaviour_of("previous_token").colour
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=receivers,
            y=[name if name in labelled else f"{name} (control)" for name in asked],
            zmin=0,
            zmax=1,
            colorscale=[[0, "rgba(128,134,140,0.10)"], [1, colour]],
            colorbar={"title": {"text": "attention lost", "side": "right"}, "thickness": 12, "outlinewidth": 0},
            text=[["" if np.isnan(value) or value < 0.045 else f"{value:.2f}" for value in line] for line in z],
            texttemplate="%{text}",
            hovertemplate="without %{y} in its keys<br>%{x} loses %{z:.3f}<extra></extra>",
            xgap=1,
            ygap=1,
            hoverongaps=False,
        )
    )
    figure = plain(figure, height=110 + 17 * len(asked))
    figure.add_hline(y=len(labelled) - 0.5, line={"color": INK, "width": 1})
    figure.update_xaxes(title="induction head (reads)", side="top", type="category", showgrid=False)
    figure.update_yaxes(title="earlier head (writes)", autorange="reversed", type="category", showgrid=False, tickfont_size=10)
    return figure


def _dots(rows: pl.DataFrame, names: Sequence[str], *, says: str, mark: str, key: bool) -> go.Scatter:
    """What is lost without each sender; the interval is that of the effect, laid around the loss."""
    told = [_name(row["target"]) for row in rows.iter_rows(named=True)]
    colour = behaviour_of("previous_token").colour if mark == "circle" else INK
    return go.Scatter(
        x=rows["value"].to_list(),
        y=[len(names) - 1 - names.index(name) for name in told],
        mode="markers",
        name=says,
        legendgroup=says,
        showlegend=key,
        marker={"symbol": mark, "size": 9, "color": colour, "line": {"width": 1.5, "color": colour}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (rows["effect_high"] - rows["effect"]).to_list(),
            "arrayminus": (rows["effect"] - rows["effect_low"]).to_list(),
            "thickness": 1.3,
            "width": 3,
            "color": colour,
        },
        hoverinfo="text",
        hovertext=[_says(row, says) for row in rows.iter_rows(named=True)],
    )


def _bounds(figure: go.Figure, rows: pl.DataFrame, matches: Matches, site: str, column: int) -> None:
    """From the least to the most that a control costs, and where an effect begins to count."""
    keys = rows.filter((pl.col("measure") == "k_composition") & ~pl.col("target").str.contains(","))
    labelled = set(keys["target"])
    controls = [value for (receiver, sender), value in _lost(matches).items() if receiver == site and sender not in labelled]
    at = {"xref": f"x{column}" if column > 1 else "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    if controls:
        figure.add_shape(type="rect", x0=min(controls), x1=max(controls), fillcolor=FAINT, opacity=0.45, line_width=0, **at)
    if len(keys):
        bound = float(keys["null"][0] + keys["floor"][0])
        figure.add_shape(type="line", x0=bound, x1=bound, line={"color": INK, "width": 1, "dash": "dash"}, **at)


def _lost(matches: Matches) -> dict[tuple[str, str], float]:
    """(receiver, sender) -> attention lost when a single sender is removed from the receiver's keys."""
    found = {}
    for name, match in matches.items():
        what, *parts = name.split("/")
        if what == "match" and len(parts) == 3 and parts[1] == "keys" and "+" not in parts[2]:
            found[parts[0], parts[2]] = float(np.mean(matches[f"match/{parts[0]}/clean"] - match))
    return found


def _senders(rows: pl.DataFrame) -> list[str]:
    """The labelled senders by layer, and all of them together at the end."""
    names = {_name(target) for target in rows["target"].drop_nulls()}
    return sorted(names, key=lambda name: (name == TOGETHER, _order(name) if name != TOGETHER else ()))


def _name(target: str) -> str:
    return TOGETHER if "," in target else target


def _order(site: str) -> tuple[int, ...]:
    """Heads in order of layer and index; rotations of a head (`L3H2~4`) after it."""
    layer, _, rest = site.removeprefix("L").partition("H")
    head, _, draw = rest.partition("~")
    return int(layer), int(head), int(draw or -1)


def _clean(matches: Matches, site: str) -> float:
    return float(np.mean(matches[f"match/{site}/clean"]))


def _says(row: Mapping[str, object], says: str) -> str:
    effect, low, high = (float(str(row[name])) for name in ("effect", "effect_low", "effect_high"))
    without = f"<b>{html.escape(str(row['site']))}</b> without {html.escape(str(row['target']))} {says}"
    lines = [f"loses {float(str(row['value'])):.3f}", f"beyond controls: {numbers.estimate(effect, low, high)}"]
    return "<br>".join([without, *lines, html.escape(str(row["note"]))])


def _nothing() -> go.Figure:
    figure = plain(go.Figure(), height=120)
    return figure.add_annotation(text="no induction head was asked whose output it reads", showarrow=False)
