"""Figures of domain heads: what losing a head costs each domain."""

import html

import plotly.graph_objects as go
import polars as pl

from innerworks.show import numbers
from innerworks.show.figures.heads import FAINT, INK, LINE, plain

COLOUR = "#2E6E8E"
MOST = 8  # heads


def harm_by_domain(findings: pl.DataFrame, *, most: int = MOST) -> go.Figure:
    """Show what losing each tested head costs every domain, in nats per token, with 95 % intervals over documents.

    A row per head, the largest contrast on top; the domain it was tested for in colour (full where it is labelled), all others
    in grey. A domain head's coloured mark stands alone to the right; a head that all need has its marks side by side.
    """
    contrasts = findings.filter(pl.col("measure") == "harm_contrast").sort("rung", "effect", descending=True)
    heads = contrasts["site"].unique(maintain_order=True).to_list()[:most]
    tested = {(row["site"], row["behaviour"]): row for row in contrasts.iter_rows(named=True)}
    harms = findings.filter((pl.col("measure") == "harm_in_domain") & pl.col("site").is_in(heads))
    domains = sorted(harms["behaviour"].unique().to_list())
    figure = go.Figure()
    for at, site in enumerate(heads):
        rows = harms.filter(pl.col("site") == site).sort("behaviour").to_dicts()
        others = [row for row in rows if (site, row["behaviour"]) not in tested]
        figure.add_trace(_marks(others, [_height(at, domains.index(row["behaviour"]), len(domains)) for row in others]))
        for row in (row for row in rows if (site, row["behaviour"]) in tested):
            height = _height(at, domains.index(row["behaviour"]), len(domains))
            figure.add_trace(_tested(row, tested[site, row["behaviour"]], height))
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_xaxes(title="harm when lost (nats per token)", gridcolor=LINE)
    ticks = {"tickvals": list(range(len(heads))), "ticktext": heads}
    figure.update_yaxes(**ticks, range=[max(len(heads), 1) - 0.4, -0.6], showgrid=False)
    return plain(figure, height=100 + 62 * max(len(heads), 1))


def _height(at: int, domain: int, domains: int) -> float:
    return at + 0.7 * ((domain + 0.5) / domains - 0.5)


def _marks(rows: list[dict], heights: list[float]) -> go.Scatter:
    return go.Scatter(
        x=[row["effect"] for row in rows],
        y=heights,
        mode="markers",
        marker={"size": 5, "color": FAINT},
        error_x=_bars(rows, FAINT, 1.0),
        hoverinfo="text",
        hovertext=[_words(row) for row in rows],
        showlegend=False,
    )


def _tested(row: dict, contrast: dict, height: float) -> go.Scatter:
    """The domain that a head was tested for, with its name beside it."""
    labelled = contrast["rung"] >= 1
    beyond = numbers.estimate(contrast["effect"], contrast["effect_low"], contrast["effect_high"])
    more = f"<br>beyond other domains {beyond}, q {numbers.q_value(contrast['q'])}<br>{html.escape(contrast['note'])}"
    return go.Scatter(
        x=[row["effect"]],
        y=[height],
        mode="markers+text",
        marker={"size": 10, "symbol": "circle" if labelled else "circle-open", "color": COLOUR, "line": {"width": 1.8}},
        error_x=_bars([row], COLOUR, 1.6),
        text=[f"  {html.escape(_domain(row))}"],
        textposition="top right",
        textfont={"size": 11, "color": COLOUR},
        cliponaxis=False,
        hoverinfo="text",
        hovertext=[_words(row) + more],
        showlegend=False,
    )


def _bars(rows: list[dict], colour: str, thickness: float) -> dict:
    return {
        "type": "data",
        "symmetric": False,
        "array": [row["effect_high"] - row["effect"] for row in rows],
        "arrayminus": [row["effect"] - row["effect_low"] for row in rows],
        "thickness": thickness,
        "width": 0,
        "color": colour,
    }


def _domain(row: dict) -> str:
    return row["behaviour"].removeprefix("domain:")


def _words(row: dict) -> str:
    harm = numbers.estimate(row["effect"], row["effect_low"], row["effect_high"])
    return f"<b>{row['site']}</b> lost, {html.escape(_domain(row))}: {harm} nats, n = {row['n']}"
