"""Figures of the stream: which dimensions stick out at which depth, and how alike tokens are with and without them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from innerworks.show import numbers
from innerworks.show.figures.heads import INK, LINE, plain

SHOWN = 6  # dimensions with a line of their own
COLOURS = ("#A4343A", "#2F6FB5", "#2F855A", "#B08000", "#8F4FBF", "#0E8CA8")
LINES = {  # measure -> name, colour, dash
    "mean_cosine": ("all dimensions", "#3C6E91", "solid"),
    "cosine_without": ("without rogue dimensions", "#A4343A", "dash"),
    "cosine_centred": ("with the mean taken off", "#7F8891", "dot"),
}


def sizes_by_layer(findings: pl.DataFrame, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> go.Figure:
    """Show how far the dimensions that stick out furthest do so, layer by layer, on ordinary tokens.

    y: robust z of the size, in spreads over the dimensions of the stream. Grey: the furthest of directions drawn at random, with
    the floor above it (dashed). First and massive tokens are left out.
    """
    z, turned = arrays["z"], arrays["turned"]
    rogue = findings.filter((pl.col("measure") == "robust_z") & (pl.col("rung") >= 1))
    floor = float(rogue["floor"][0]) if len(rogue) else 0.0
    often = np.argsort(-z.max(axis=0), kind="stable")
    labelled = set(rogue["index"].to_list())
    layers = list(range(len(z)))
    figure = go.Figure()
    for colour, dimension in zip(COLOURS, [int(d) for d in often if int(d) in labelled][:SHOWN], strict=False):
        text = [f"L{layer}D{dimension}: {numbers.rounded(float(z[layer, dimension]), 3)} spreads" for layer in layers]
        line = {"color": colour, "width": 2}
        figure.add_trace(
            go.Scatter(x=layers, y=z[:, dimension].tolist(), name=f"D{dimension}", line=line, hovertext=text, hoverinfo="text")
        )
    figure.add_trace(_grey(layers, turned, "directions at random", "solid"))
    figure.add_trace(_grey(layers, turned + floor, "floor", "dash"))
    figure.update_xaxes(title="layer", gridcolor=LINE)
    figure.update_yaxes(title="robust z of the size", gridcolor=LINE)
    return plain(figure, height=340)


def _grey(layers: list[int], values: np.ndarray, name: str, dash: str) -> go.Scatter:
    line = {"color": INK, "width": 1, "dash": dash}
    return go.Scatter(x=layers, y=values.tolist(), name=name, mode="lines", line=line, hoverinfo="skip")


def cosines_by_layer(findings: pl.DataFrame) -> go.Figure:
    """Show the mean cosine between tokens of different documents by layer: as they are, without rogue dimensions, centred."""
    figure = go.Figure()
    for measure, (name, colour, dash) in LINES.items():
        rows = findings.filter(pl.col("measure") == measure).sort("layer")
        text = [
            f"L{row['layer']}, {name}: {numbers.estimate(row['effect'], row['effect_low'], row['effect_high'])}"
            for row in rows.iter_rows(named=True)
        ]
        line = {"color": colour, "width": 2, "dash": dash}
        figure.add_trace(
            go.Scatter(
                x=rows["layer"].to_list(), y=rows["effect"].to_list(), name=name, line=line, hovertext=text, hoverinfo="text"
            )
        )
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    figure.update_xaxes(title="layer", gridcolor=LINE)
    figure.update_yaxes(title="mean cosine", gridcolor=LINE)
    return plain(figure, height=320)
