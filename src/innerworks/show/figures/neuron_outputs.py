"""Figures of what neurons write: which kinds stand in which layers."""

import plotly.graph_objects as go
import polars as pl

from innerworks.show.behaviours import behaviour_of
from innerworks.show.figures.heads import LINE, plain

KINDS = ("prediction", "suppression", "partition")


def kinds_by_layer(findings: pl.DataFrame) -> go.Figure:
    """Show, for every layer, the share of its neurons that raise a few tokens, lower a few, or divide the vocabulary.

    A line per kind. Where only a sample of a layer was weighed, a band says what the whole layer may hold (95 %).
    """
    shares = findings.filter((pl.col("measure") == "share_of_layer") & pl.col("behaviour").is_in(KINDS)).sort("layer")
    figure = go.Figure()
    for kind in KINDS:
        rows = shares.filter(pl.col("behaviour") == kind)
        if rows["note"].str.contains("drawn at random").any():
            figure.add_trace(_band(rows, behaviour_of(kind).colour))
        figure.add_trace(_line(rows, kind))
    figure.update_xaxes(title="layer", gridcolor=LINE)
    figure.update_yaxes(title="share of its neurons", tickformat=".1%", rangemode="tozero", gridcolor=LINE)
    return plain(figure, height=320)


def _line(rows: pl.DataFrame, kind: str) -> go.Scatter:
    shown = behaviour_of(kind)
    return go.Scatter(
        x=rows["layer"].to_list(),
        y=rows["value"].to_list(),
        name=shown.plural,
        mode="lines+markers",
        line={"color": shown.colour, "width": 2},
        marker={"symbol": shown.mark, "size": 7},
        hoverinfo="text",
        hovertext=[f"<b>layer {row['layer']}</b>, {shown.plural}: {row['note']}" for row in rows.iter_rows(named=True)],
    )


def _band(rows: pl.DataFrame, colour: str) -> go.Scatter:
    layers = rows["layer"].to_list()
    return go.Scatter(
        x=[*layers, *reversed(layers)],
        y=[*rows["effect_high"], *reversed(rows["effect_low"].to_list())],
        fill="toself",
        fillcolor=colour,
        opacity=0.12,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )
