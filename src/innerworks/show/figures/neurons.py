"""Figures of feed-forward neurons: at which depth those of each kind are."""

import html
from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go

from innerworks.show.figures.heads import LINE, plain
from innerworks.show.verdicts import Kindred

LARGEST = 19  # pixels across


def depth(found: Sequence[Kindred], layers: int) -> go.Figure:
    """Show in which layers the labelled neurons of each kind are.

    x: layer; one row per kind, those with most labels on top. The area of a disc is the share of the kind's own labels, so that
    rare kinds are seen beside common ones; numbers are beside the names.
    """
    counted = [(one, Counter(head.layer or 0 for head in one.labels)) for one in found if one.labels]
    counted.sort(key=lambda pair: pair[1].total())
    figure = go.Figure()
    for row, (one, counts) in enumerate(counted):
        most = max(counts.values())
        figure.add_trace(
            go.Scatter(
                x=list(counts),
                y=[row] * len(counts),
                mode="markers",
                marker={
                    "size": [max(3.0, LARGEST * (count / most) ** 0.5) for count in counts.values()],
                    "color": one.behaviour.colour,
                    "opacity": 0.85,
                    "line": {"width": 0},
                },
                hoverinfo="text",
                hovertext=[f"<b>L{layer}</b> {_several(one, count)}" for layer, count in counts.items()],
                showlegend=False,
            )
        )
    figure.update_xaxes(title="layer", range=[-0.8, layers - 0.2], dtick=1 if layers <= 12 else 5, gridcolor=LINE)
    names = [f"{html.escape(one.behaviour.title)} ({counts.total()})" for one, counts in counted]
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "tickfont_size": 11}
    figure.update_yaxes(**ticks, range=[-0.7, max(len(names), 1) - 0.3], showgrid=False)
    return plain(figure, height=80 + 26 * max(len(names), 1))


def _several(one: Kindred, count: int) -> str:
    behaviour = one.behaviour
    return f"{count} {html.escape(behaviour.singular if count == 1 else behaviour.plural)}"
