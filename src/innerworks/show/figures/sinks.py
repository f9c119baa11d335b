"""Figures of attention sinks: how little is read where heads rest, and how long the stream is there."""

import plotly.graph_objects as go
import polars as pl

from innerworks.show import numbers
from innerworks.show.figures.heads import FAINT, INK, LINE, plain

COLOUR = "#B4552D"


def value_norms(findings: pl.DataFrame) -> go.Figure:
    """Show, for every head, how much it rests on the first token against the length of what it reads there.

    x: attention mass on the first token. y: length of what is read there as a share of the median at other positions, on a log
    scale; the dashed line is the floor of one half. Heads that rest and read next to nothing lie at the lower right; labelled
    sinks in colour.
    """
    norms = findings.filter((pl.col("measure") == "value_norm") & (pl.col("site") != "model"))
    sinks = findings.filter((pl.col("behaviour") == "first_token") & (pl.col("measure") == "attention"))
    both = norms.join(sinks.select("site", mass="value", label="rung"), on="site")
    figure = go.Figure()
    for labelled in (False, True):
        some = both.filter((pl.col("label") >= 1) == labelled)
        shares = [value / null for value, null in zip(some["value"], some["null"], strict=True)]
        figure.add_trace(
            go.Scatter(
                x=some["mass"].to_list(),
                y=shares,
                mode="markers",
                name="labelled sinks" if labelled else "other heads",
                marker={"size": 6 if labelled else 5, "color": COLOUR if labelled else FAINT, "line": {"width": 0}},
                text=some["site"].to_list(),
                hovertemplate="<b>%{text}</b> rests with %{x:.2f}, reads %{y:.2f} times what it reads elsewhere<extra></extra>",
            )
        )
    figure.add_hline(y=1, line={"color": INK, "width": 1})
    figure.add_hline(y=0.5, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="attention on the first token", range=[-0.02, 1.02], gridcolor=LINE)
    figure.update_yaxes(
        title="length of value there / elsewhere", type="log", gridcolor=LINE, tickvals=_ticks(both), tickformat="g"
    )
    return plain(figure, height=360)


def _ticks(both: pl.DataFrame) -> list[float]:
    lowest = float((both["value"] / both["null"]).min() or 0.1) if len(both) else 0.1  # pyright: ignore[reportArgumentType]
    return [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0) if tick > lowest / 2.5]


def stream_norms(findings: pl.DataFrame) -> go.Figure:
    """Show how long the stream is at the first token, layer by layer, against the median of other positions.

    The band is the 95 % interval over documents, the dashed line the floor: ten times as long.
    """
    rows = findings.filter(pl.col("measure") == "norm_ratio").sort("layer")
    layers = rows["layer"].to_list()
    ratio, low, high = ((rows[name].exp()).to_list() for name in ("effect", "effect_low", "effect_high"))
    figure = go.Figure()
    band = {"x": layers + layers[::-1], "y": high + low[::-1], "fill": "toself", "fillcolor": "rgba(180,85,45,0.2)"}
    figure.add_trace(go.Scatter(**band, line={"width": 0}, hoverinfo="skip", showlegend=False))
    text = [f"L{layer}: {numbers.rounded(value, 3)} times" for layer, value in zip(layers, ratio, strict=True)]
    line = {"color": COLOUR, "width": 2}
    figure.add_trace(
        go.Scatter(x=layers, y=ratio, mode="lines+markers", line=line, hovertext=text, hoverinfo="text", showlegend=False)
    )
    figure.add_hline(y=1, line={"color": INK, "width": 1})
    figure.add_hline(y=10, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="layer", showgrid=False)
    figure.update_yaxes(
        title="stream at first token / elsewhere", type="log", gridcolor=LINE, tickvals=[1, 3, 10, 30, 100, 300, 1000]
    )
    return plain(figure, height=320)
