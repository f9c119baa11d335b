"""Figures of copy suppression: does a head look at what is about to be predicted, does it lower it, what is lost without it?

`nearest` which head to draw · `attention` mean attention by how likely the logit lens finds the token looked at · `lowering`
single pairs: attention against what it does to the logit · `reliability` claimed against true share of right answers, with and
without a head. All are drawn from the arrays that the study keeps (`arrays/suppression.safetensors`) and what it tells of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from innerworks.show.figures.heads import FAINT, INK, LINE, plain

if TYPE_CHECKING:
    import polars

Arrays = Mapping[str, np.ndarray]
PREDICTED, OTHER = "#B0366E", "#6F8FAF"
DRAWS = 1000


def of_nearest(findings: "polars.DataFrame", arrays: Arrays, about: Mapping[str, Any]) -> go.Figure:
    """Draw `attention` for the head that is a copy-suppression head, or comes nearest to being one."""
    site = nearest(findings)
    return (
        go.Figure() if site is None else attention(arrays, about, site).update_layout(title={"text": site, "font": {"size": 13}})
    )


def lowering_of_nearest(findings: "polars.DataFrame", arrays: Arrays, about: Mapping[str, Any]) -> go.Figure:
    """Draw `lowering` for the same head."""
    site = nearest(findings)
    return go.Figure() if site is None else lowering(arrays, site).update_layout(title={"text": site, "font": {"size": 13}})


def reliability_of_nearest(findings: "polars.DataFrame", arrays: Arrays, about: Mapping[str, Any]) -> go.Figure:
    """Draw `reliability` for the same head, where it was ablated: only labelled ones are."""
    site = nearest(findings)
    if site is None or site not in about.get("runs", ()):
        return go.Figure()
    return reliability(arrays, about, site).update_layout(title={"text": site, "font": {"size": 13}})


def nearest(findings: "polars.DataFrame") -> str | None:
    """The head whose weaker of two effects on attention, against either null, is the largest: a label needs both."""
    import polars as pl

    both = findings.filter(
        (pl.col("behaviour") == "copy_suppression") & pl.col("measure").is_in(["attention", "attention_unpredicted"])
    )
    weaker = both.group_by("site").agg(pl.col("rung").max(), pl.col("effect").min()).sort("rung", "effect", "site")
    return None if weaker.is_empty() else str(weaker["site"][-1])


def attention(arrays: Arrays, about: Mapping[str, Any], site: str) -> go.Figure:
    """Show how much a head attends to a token of the text, by the probability that the logit lens gives to that token there.

    x: probability of the token, at the row that looks, before the head's layer. y: mean attention of all such pairs of row and
    key, with a 95 % interval from a bootstrap over documents. A head that does not care for predictions gives a flat line.
    """
    sums = arrays["by_probability"][:, _place(arrays, site)].astype(np.float64)  # doc bin (pairs, attention, effect)
    rng, docs = np.random.default_rng(0), len(sums)
    weights = rng.multinomial(docs, np.full(docs, 1 / docs), size=DRAWS)
    drawn = np.einsum("nd,dbk->nbk", weights, sums)
    pairs = sums[..., 0].sum(axis=0)
    mean = sums[..., 1].sum(axis=0) / np.maximum(pairs, 1)
    over = np.where(drawn[..., 0] > 0, drawn[..., 1] / np.maximum(drawn[..., 0], 1), mean)
    low, high = np.quantile(over, [0.025, 0.975], axis=0)
    names = [_between(*edges) for edges in zip(about["bins"][:-1], about["bins"][1:], strict=True)]
    shown = pairs > 0
    figure = go.Figure(
        go.Scatter(
            x=[name for name, yes in zip(names, shown, strict=True) if yes],
            y=mean[shown],
            mode="lines+markers",
            line={"color": PREDICTED, "width": 1.5},
            marker={"size": 9, "color": PREDICTED},
            error_y={
                "type": "data", "symmetric": False, "array": (high - mean)[shown], "arrayminus": (mean - low)[shown],
                "thickness": 1.4, "width": 3, "color": PREDICTED,
            },
            customdata=pairs[shown],
            hovertemplate=f"<b>{site}</b> %{{x}}<br>attention %{{y:.4f}}<br>%{{customdata:.0f}} pairs<extra></extra>",
            showlegend=False,
        )
    )  # fmt: skip
    figure.update_xaxes(title="probability of the token looked at, by the logit lens", type="category", showgrid=False)
    figure.update_yaxes(title="mean attention", rangemode="tozero", gridcolor=LINE)
    return plain(figure, height=300)


def lowering(arrays: Arrays, site: str) -> go.Figure:
    """Show single looks of a head: how much attention, and what that does to the logit of the token looked at.

    x: attention. y: direct effect on that token's logit; below zero it is lowered. Colour: whether the token was among the ten
    likeliest by the logit lens. The strongest looks of either sort and some of the others.
    """
    points = arrays["points"][_place(arrays, site)]
    points = points[np.isfinite(points[:, 0])]
    figure = go.Figure()
    for name, colour, symbol, wanted in (
        ("not predicted", OTHER, "circle-open", 0),
        ("about to be predicted", PREDICTED, "circle", 1),
    ):
        some = points[points[:, 3] == wanted]
        figure.add_trace(
            go.Scatter(
                x=some[:, 0], y=some[:, 1], mode="markers", name=name, customdata=some[:, 2],
                marker={"size": 6, "color": colour, "symbol": symbol, "opacity": 0.75, "line": {"width": 1, "color": colour}},
                hovertemplate="attention %{x:.3f}<br>logit %{y:+.3f}<br>probability %{customdata:.4f}<extra></extra>",
            )
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    figure.update_xaxes(title="attention", gridcolor=LINE, rangemode="tozero")
    figure.update_yaxes(title="effect on its logit", gridcolor=LINE)
    return plain(figure, height=340)


def reliability(arrays: Arrays, about: Mapping[str, Any], site: str) -> go.Figure:
    """Show whether the model knows how often it is right, as it is and without a head.

    x: the probability of the likeliest token, mean of a bin (15 bins of equal mass). y: how often it was right, less x, so the
    line at zero is a model that is calibrated, and below it is one that claims too much.
    """
    figure = go.Figure()
    for name, colour, symbol, run in (
        ("whole model", INK, "circle-open", "clean"),
        (f"without {site}", PREDICTED, "circle", site),
    ):
        total = arrays["bins"][about["runs"].index(run)].astype(np.float64).sum(axis=0)
        claimed, right = total[:, 1] / total[:, 0], total[:, 2] / total[:, 0]
        figure.add_trace(
            go.Scatter(
                x=claimed, y=right - claimed, mode="lines+markers", name=name, customdata=np.stack([right, total[:, 0]], axis=1),
                line={"color": colour, "width": 1.2}, marker={"size": 7, "symbol": symbol, "color": colour},
                hovertemplate="claimed %{x:.3f}<br>right %{customdata[0]:.3f} of %{customdata[1]:.0f}<extra></extra>",
            )
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": FAINT, "width": 1.5, "dash": "dash"})
    figure.update_xaxes(title="probability of the likeliest token", gridcolor=LINE, range=[0, 1])
    figure.update_yaxes(title="share right − probability", gridcolor=LINE)
    return plain(figure, height=320)


def _place(arrays: Arrays, site: str) -> int:
    """Which of the heads that were looked at this is."""
    return [f"L{layer}H{head}" for layer, head in arrays["heads"]].index(site)


def _between(low: float, high: float) -> str:
    return f"below {high:g}" if low <= 0 else f"{low:g} and more" if high > 1 else f"{low:g} to {high:g}"
