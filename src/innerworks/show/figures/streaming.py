"""Figures of streaming: what each way of forgetting costs, along the text and in what is generated."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from innerworks.show.figures.heads import INK, LINE, plain

#: way -> (how it is called, colour, dash)
WAYS = {
    "window": ("window alone", "#C03A2B", "solid"),
    "sinks_4": ("4 sinks + window", "#2F7EC0", "solid"),
    "recomputation": ("recomputed", "#6B7178", "dot"),
}
BLOCK = 16  # positions averaged into one point


def losses_by_position(arrays: Mapping[str, np.ndarray], *, cache: int) -> go.Figure:
    """Show the loss of the next token behind a full cache, for each way of keeping part of the text.

    arrays: of the atlas' `streaming.safetensors`. x: position in the text; everything to the right of the dashed line lies past
    the cache. Each point averages 16 positions of all texts, the band is plus and minus one standard error over texts.
    """
    figure = go.Figure()
    for way, (name, colour, dash) in WAYS.items():
        if f"losses/{way}" in arrays:
            places, mean, error = _blocks(arrays[f"losses/{way}"], cache)
            figure.add_traces(_line(places, mean, error, name, colour, dash))
    figure.add_vline(x=cache, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="position in the text", showgrid=False)
    figure.update_yaxes(title="loss (nats per token)", gridcolor=LINE)
    return plain(figure, height=340)


def divergence_by_token(arrays: Mapping[str, np.ndarray]) -> go.Figure:
    """Show how far what is generated past the window strays from what the model would say with all of it in view.

    x: tokens generated behind a full cache; y: divergence in nats, 0 where nothing was lost. Points average 8 tokens.
    """
    figure = go.Figure()
    for way, (name, colour, dash) in WAYS.items():
        if f"divergence/{way}" in arrays:
            places, mean, error = _blocks(arrays[f"divergence/{way}"], 0, block=8)
            figure.add_traces(_line(places, mean, error, name, colour, dash))
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    figure.update_xaxes(title="tokens generated past the window", showgrid=False)
    figure.update_yaxes(title="divergence (nats per token)", gridcolor=LINE)
    return plain(figure, height=300)


def _blocks(values: np.ndarray, first: int, *, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard error over texts, by block of positions; blocks without any number are left out."""
    measured = np.atleast_1d(np.isfinite(values).any(axis=0))
    places, means, errors = [], [], []
    for start in range(0, values.shape[1], block):
        part = slice(start, start + block)
        if measured[part].any():
            by_text = np.nanmean(values[:, part][:, measured[part]], axis=1)
            places.append(first + np.flatnonzero(measured[part]).mean() + start)
            means.append(by_text.mean())
            errors.append(by_text.std(ddof=1) / np.sqrt(len(by_text)))
    return np.array(places), np.array(means), np.array(errors)


def _line(places: np.ndarray, mean: np.ndarray, error: np.ndarray, name: str, colour: str, dash: str) -> list[go.Scatter]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    band = go.Scatter(
        x=np.concatenate([places, places[::-1]]),
        y=np.concatenate([mean + error, (mean - error)[::-1]]),
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    line = {"color": colour, "width": 2, "dash": dash}
    hover = f"{name}: %{{y:.2f}} nats<extra></extra>"
    return [band, go.Scatter(x=places, y=mean, mode="lines+markers", marker_size=4, line=line, name=name, hovertemplate=hover)]
