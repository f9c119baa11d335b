"""A figure of syntactic heads: for each relation and direction, how often the best head and the best offset are right.

`relations` one row per relation and direction.
"""

import html
from typing import Any

import plotly.graph_objects as go
import polars as pl

from innerworks.show import numbers
from innerworks.show.figures.heads import INK, LINE, plain

HEAD, UNLABELLED, OFFSET = "#2A7F86", "#8A9298", "#B8762B"
NAMES = {
    "acl": "noun’s clause",
    "advcl": "adverbial clause",
    "advmod": "adverb",
    "amod": "adjective",
    "appos": "apposition",
    "aux": "auxiliary",
    "case": "preposition",
    "cc": "conjunction",
    "ccomp": "object clause",
    "compound": "compound",
    "conj": "conjunct",
    "cop": "copula",
    "csubj": "subject clause",
    "det": "article",
    "expl": "expletive",
    "fixed": "fixed expression",
    "flat": "name",
    "iobj": "indirect object",
    "mark": "subordinator",
    "nmod": "noun’s noun",
    "nsubj": "subject",
    "nummod": "numeral",
    "obj": "object",
    "obl": "verb’s oblique",
    "parataxis": "parataxis",
    "xcomp": "open complement",
}


def relations(findings: pl.DataFrame) -> go.Figure:
    """Show whether syntactic relations are found by heads, or by a fixed distance just as well.

    One row per relation and direction, the largest gap on top. x: share of arcs found, averaged over documents. The bar is the
    best fixed offset, the dot the head that was best on the discovery half, full where it is labelled; whiskers are the 95 %
    interval of the gap between the two, seen from the offset. The short stroke is where the floor lies. In brackets:
    how many heads are labelled.
    """
    best = _best(findings)
    rows = list(range(len(best)))
    figure = go.Figure()
    for labelled, colour in ((True, HEAD), (False, UNLABELLED)):
        own = [(i, row) for i, row in zip(rows, best, strict=True) if bool(row["labels"]) == labelled]
        figure.add_trace(_gaps(own, colour))
    figure.add_trace(_strokes(rows, [row["null"] + row["floor"] for row in best], size=8, colour=INK, name="floor"))
    figure.add_trace(_strokes(rows, [row["null"] for row in best], size=15, colour=OFFSET, name="best fixed offset"))
    figure.add_trace(_heads(best, labelled=True))
    figure.add_trace(_heads(best, labelled=False))
    figure.add_trace(_names(best))
    figure.update_xaxes(title="share of arcs found", range=[0, 1.14], tickvals=[0, 0.25, 0.5, 0.75, 1], gridcolor=LINE)
    figure.update_yaxes(tickvals=rows, ticktext=[_title(row["behaviour"]) for row in best], showgrid=False)
    figure.update_yaxes(range=[-0.7, max(len(best), 1) - 0.3], tickfont_size=11)
    figure = plain(figure, height=100 + 23 * max(len(best), 1))
    return figure.update_layout(legend={"y": 1.0, "yanchor": "bottom"})


def _best(findings: pl.DataFrame) -> list[dict[str, Any]]:
    """The row of each relation's best head, and how many heads are labelled; the smallest gap first."""
    mine = findings.filter(
        pl.col("behaviour").str.starts_with("syntactic:") & (pl.col("measure") == "attention") & pl.col("effect").is_not_nan()
    )
    labels = mine.group_by("behaviour").agg((pl.col("rung") >= 1).sum().alias("labels"))
    best = mine.filter(pl.col("note").str.contains("best on discovery")).join(labels, on="behaviour")
    return best.sort("effect", "behaviour").to_dicts()


def _title(behaviour: str) -> str:
    """`nsubj<`: from the head to its subject."""
    member = behaviour.removeprefix("syntactic:")
    relation = member.removesuffix("<")
    name = NAMES.get(relation, relation)
    told = f"its {name}" if member.endswith("<") else f"{name} → its head"
    return html.escape(f"{told}  {member}")


def _gaps(rows: list[tuple[int, dict[str, Any]]], colour: str) -> go.Scatter:
    x, y = [], []
    for i, row in rows:
        x += [row["null"], row["value"], None]
        y += [i, i, None]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"width": 2.5, "color": colour}, opacity=0.55, hoverinfo="skip", showlegend=False
    )


def _strokes(rows: list[int], x: list[float], *, size: int, colour: str, name: str) -> go.Scatter:
    marker = {"symbol": "line-ns", "size": size, "line": {"width": 2.5 if size > 10 else 1.2, "color": colour}}
    return go.Scatter(x=x, y=rows, mode="markers", marker=marker, name=name, hoverinfo="skip")


def _heads(best: list[dict[str, Any]], *, labelled: bool) -> go.Scatter:
    own = [(i, row) for i, row in enumerate(best) if (row["rung"] >= 1) == labelled]
    colour = HEAD if labelled else UNLABELLED
    return go.Scatter(
        x=[row["value"] for _, row in own],
        y=[i for i, _ in own],
        mode="markers",
        name="best head, labelled" if labelled else "best head, not labelled",
        marker={
            "size": 9,
            "symbol": "circle" if labelled else "circle-open",
            "color": colour,
            "line": {"width": 1.8, "color": colour},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row["effect_high"] - row["effect"] for _, row in own],
            "arrayminus": [row["effect"] - row["effect_low"] for _, row in own],
            "thickness": 1.2,
            "width": 3,
            "color": colour,
        },
        hoverinfo="text",
        hovertext=[_told(row) for _, row in own],
    )


def _names(best: list[dict[str, Any]]) -> go.Scatter:
    """Each best head's name, right of all that is drawn in its row."""
    places = [max(row["null"] + row["floor"], row["value"] + row["effect_high"] - row["effect"]) for row in best]
    return go.Scatter(
        x=places,
        y=list(range(len(best))),
        mode="text",
        text=["  " + html.escape(row["site"]) + f" ({row['labels']})" * bool(row["labels"]) for row in best],
        textposition="middle right",
        textfont={"size": 10, "color": INK},
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )


def _told(row: dict[str, Any]) -> str:
    """Everything known of one row, for the hover box."""
    gap = numbers.estimate(row["effect"], row["effect_low"], row["effect_high"])
    found, null = numbers.number(row["value"], 2), numbers.number(row["null"], 2)
    lines = [
        f"<b>{html.escape(row['site'])}</b> {_title(row['behaviour'])}",
        f"finds {found}, the best offset {null} ({html.escape(row['note'].split(';')[0])})",
        f"gap {gap}, floor {numbers.constant(row['floor'])}, n = {row['n']} documents, q {numbers.q_value(row['q'])}",
        f"{row['labels']} heads labelled",
    ]
    return "<br>".join(lines)
