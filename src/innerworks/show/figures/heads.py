"""Figures of attention heads: where in the model they are, how strong, and what their patterns look like.

`map_of_heads` layer by head, one mark per label · `effects` effects with intervals against null and floor · `pattern`
one head's attention on real text. The fill of a mark is its rung of evidence: open = seen, with a core = necessary,
full = selective.
"""

import html
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go

from innerworks.show import numbers
from innerworks.show.behaviours import RUNGS, Behaviour, behaviour_of
from innerworks.show.measures import measure_of, word
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Gathered, Head, Kindred, Score, Verdict, kindred, of_behaviour, verdicts

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
MONOSPACE = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, LINE = "#6B7178", "rgba(128,134,140,0.28)"
FAINT = "rgba(128,134,140,0.5)"
_GOLDEN = 0.6180339887498949  # spreads points evenly without a random generator


# --- where they are ----------------------------------------------------------------------------------------------


def map_of_heads(findings: Gathered) -> go.Figure:
    """Show which heads of the model carry which label.

    One place per head: x = head, y = layer, layer 0 at the bottom. Colour and shape tell the behaviour, the fill its
    rung; a head with several labels has several marks side by side. Very common labels (first token) are a quiet square
    behind the others.
    """
    found = verdicts(findings)
    heads = {head.site: head for verdict in found for head in verdict.heads}
    told = kindred(found)
    figure = go.Figure()
    for one in told:
        if one.behaviour.quiet:
            figure.add_trace(_quiet(one))
    labels = _labels_by_site(told)
    figure.add_trace(_points([head for site, head in heads.items() if site not in labels], size=3, colour=FAINT))
    for one in told:
        if not one.behaviour.quiet and one.labels:
            figure.add_traces(_marks(one, labels))
    figure.add_traces(_rung_key())
    hover = _points(list(heads.values()), size=22, colour="rgba(0,0,0,0)")
    by_site = _verdict_lines(found)
    figure.add_trace(
        hover.update(
            hoverinfo="text",
            hovertext=[f"<b>{site}</b><br>" + "<br>".join(by_site.get(site, ["no label"])) for site in heads],
            customdata=list(heads),
        )
    )
    layers = 1 + max((head.layer or 0 for head in heads.values()), default=0)
    across = 1 + max((head.index or 0 for head in heads.values()), default=0)
    figure.update_xaxes(title="head", range=[-0.6, across - 0.4], dtick=1 if across <= 16 else 4, showgrid=False)
    figure.update_yaxes(title="layer", range=[-0.7, layers - 0.3], dtick=1 if layers <= 8 else 5, showgrid=False)
    return plain(figure, height=max(260, 22 * layers + 60))


def _labels_by_site(told: Sequence[Kindred]) -> dict[str, list[str]]:
    """The marks of each head, from left to right: the highest rung first, then the strongest; one for a whole family."""
    ranked: dict[str, dict[str, tuple[int, float]]] = {}
    for one in told:
        for head in () if one.behaviour.quiet else one.labels:
            mine = ranked.setdefault(head.site, {})
            mine[one.behaviour.name] = min((-head.rung, -head.strength), mine.get(one.behaviour.name, (0, 0.0)))
    return {site: sorted(labels, key=lambda name: labels[name]) for site, labels in ranked.items()}


def _points(heads: Sequence[Head], *, size: int, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[head.index for head in heads],
        y=[head.layer for head in heads],
        mode="markers",
        marker={"size": size, "color": colour, "opacity": 1, "line": {"width": 0}},
        hoverinfo="skip",
        showlegend=False,
    )


def _quiet(one: Kindred) -> go.Scatter:
    points = _points(one.labels, size=19, colour="rgba(128,134,140,0.20)")
    return points.update(marker_symbol="square", name=one.behaviour.title, showlegend=bool(one.labels))


def _marks(one: Kindred, labels: dict[str, list[str]]) -> list[go.Scatter]:
    """One trace of outlines (full at rung 3), one of the cores that rung 2 adds."""
    behaviour, best = one.behaviour, {head.site: head for head in reversed(one.labels)}
    heads = list(reversed(best.values()))  # of a family, each head's strongest label
    several = {head.site: len(labels[head.site]) for head in heads}
    places = {
        head.site: (head.index or 0) + _aside(labels[head.site].index(behaviour.name), several[head.site]) for head in heads
    }
    outline = _points(heads, size=12, colour=behaviour.colour)
    outline.update(
        x=list(places.values()),
        name=behaviour.title,
        legendgroup=behaviour.name,
        showlegend=True,
        marker={
            "symbol": [_symbol(behaviour, head.rung) for head in heads],
            "size": [{1: 12, 2: 9.5, 3: 8}.get(several[head.site], 7) for head in heads],
            "line": {"width": 1.8, "color": behaviour.colour},
        },
    )
    necessary = [head for head in heads if head.rung == 2]
    core = _points(necessary, size=5, colour=behaviour.colour)
    core.update(x=[places[head.site] for head in necessary], marker_symbol=behaviour.mark, legendgroup=behaviour.name)
    return [outline, core]


def _aside(place: int, of: int) -> float:
    """How far to the side of its head a mark stands, in places of heads."""
    return min(0.36, 0.72 / max(1, of - 1)) * (place - (of - 1) / 2)


def _symbol(behaviour: Behaviour, rung: int) -> str:
    return behaviour.mark if rung >= 3 else f"{behaviour.mark}-open"


def _rung_key() -> list[go.Scatter]:
    symbols = {1: "circle-open", 2: "circle-open-dot", 3: "circle"}
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=f"rung {rung}: {RUNGS[rung]}",
            marker={"symbol": symbol, "size": 11, "color": INK},
            hoverinfo="skip",
        )
        for rung, symbol in symbols.items()
    ]


def _verdict_lines(found: Sequence[Verdict]) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for verdict in found:
        for head in verdict.labels:
            numbers_shown = ", ".join(
                f"{word(s.material)} {numbers.estimate(s.effect, s.low, s.high)}" for s in _once_per_material(head.deciding)
            )
            text = f"{verdict.behaviour.title}, rung {head.rung} ({RUNGS[head.rung]}): {numbers_shown}"
            lines.setdefault(head.site, []).append(html.escape(text, quote=False))
    return lines


def _once_per_material(scores: Sequence[Score]) -> list[Score]:
    return list({score.material: score for score in reversed(scores)}.values())[::-1]


# --- how strong --------------------------------------------------------------------------------------------------


def effects(
    findings: Gathered, behaviour: str, *, material: str = "text", measure: str = "attention", most: int = 20
) -> go.Figure:
    """Show how far above its null each labelled head of one behaviour is, and whether that is above the floor.

    x: effect (score minus null; for harm: minus the mean of the matched controls), with its 95 % interval over
    documents. The solid line at zero is the null, the dashed one the floor. Below the labelled heads, strongest on top,
    all other heads as a faint strip; those too far below zero to be of interest lie on the left edge as triangles.
    findings: the table, or the verdicts gathered from it.
    """
    found = of_behaviour(findings, behaviour)
    scored = [(head, score) for head, score in _scores(found, material, measure) if numbers.known(score.effect)]
    scored.sort(key=lambda pair: (pair[0].rung < 1, -pair[1].effect))
    scored = _once_per_group(scored) if measure == "joint_harm" else scored
    named = len(scored) if measure_of(measure).tries else sum(head.rung >= 1 for head, _ in scored)
    shown, rest = scored[: min(most, named)], scored[min(most, named) :]
    rows = len(shown) + bool(rest)
    figure = go.Figure()
    names = {rows - 1 - i: head.site or "group" for i, (head, _) in enumerate(shown)}
    bounds = sorted({score.bound for _, score in scored})
    left, right = _reach(scored, bounds)
    if rest:
        figure.add_trace(_strip(rest, left + 0.025 * (right - left)))
        names[0] = f"{len(rest)} others" if shown else f"{len(rest)} {found[0].part[1]}"
    if shown:
        figure.add_traces(_intervals(shown, list(names)[: len(shown)], behaviour_of(behaviour)))
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    for bound in bounds:
        figure.add_vline(x=bound, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_xaxes(title=_axis_title(measure, scored), gridcolor=LINE, range=[left, right])
    ends = [-0.7, max(rows, 1) - 0.3]
    ticks = {"tickvals": list(names), "ticktext": list(names.values()), "tickfont_size": 11}
    figure.update_yaxes(**ticks, range=ends, showgrid=False)
    return plain(figure, height=92 + 21 * max(rows, 1))


def _scores(found: Sequence[Verdict], material: str, measure: str) -> list[tuple[Head, Score]]:
    heads = [head for verdict in found for head in (*verdict.heads, *verdict.groups)]
    scores = [(head, score) for head in heads for score in (*head.seen, *head.causal)]
    return [(head, score) for head, score in scores if score.series == (measure, material)]


def _once_per_group(scored: Sequence[tuple[Head, Score]]) -> list[tuple[Head, Score]]:
    """A group's joint harm is written down for each of its members; show it once."""
    groups: dict[tuple[float, float], list[tuple[Head, Score]]] = {}
    for pair in scored:
        groups.setdefault((pair[1].effect, pair[1].low), []).append(pair)
    several = {key: f"{len(pairs)} heads" for key, pairs in groups.items() if len(pairs) > 1}
    return [(replace(pairs[0][0], site=several.get(key, pairs[0][0].site)), pairs[0][1]) for key, pairs in groups.items()]


def _axis_title(measure: str, scored: Sequence[tuple[Head, Score]]) -> str:
    unit = " or ".join(sorted({score.unit for _, score in scored}))
    what = "harm elsewhere" if measure == "collateral" else "harm − controls" if measure_of(measure).tries else "score − null"
    return f"{what} ({unit})" if unit else what


def _reach(scored: Sequence[tuple[Head, Score]], bounds: Sequence[float]) -> tuple[float, float]:
    """From where to where the axis goes: all intervals of labels, the floor, and of what lies below zero a part."""
    right = max(
        [
            *bounds,
            *(score.effect for _, score in scored),
            *(s.high for h, s in scored if h.rung >= 1 and numbers.known(s.high)),
        ],
        default=1.0,
    )
    labelled = [score.low for head, score in scored if head.rung >= 1 and numbers.known(score.low)]
    lowest = min([0.0, *(score.effect for _, score in scored), *labelled])
    left = max(lowest, min([-0.4 * right, *labelled]))
    margin = 0.04 * (right - left) or 1.0
    return left - margin, right + margin


def _strip(rest: Sequence[tuple[Head, Score]], left: float) -> go.Scatter:
    """All heads without a row of their own; small in memory, for there are thousands in a large model."""
    effects = np.array([score.effect for _, score in rest], dtype=np.float32)
    beyond = effects < left
    spread = 0.44 * ((np.arange(len(rest), dtype=np.float32) * _GOLDEN) % 1 - 0.5)
    marker = {"size": 4, "symbol": "circle", "color": FAINT, "opacity": 1, "line": {"width": 0}}
    if beyond.any():
        marker["symbol"] = np.where(beyond, "triangle-left", "circle").tolist()
        marker["size"] = np.where(beyond, 6, 4).astype(np.uint8)
    return go.Scatter(
        x=np.maximum(effects, np.float32(left)),
        y=spread.astype(np.float32),
        mode="markers",
        marker=marker,
        text=[html.escape(head.site) for head, _ in rest],
        customdata=effects,
        hovertemplate="<b>%{text}</b> %{customdata:.4f}<extra></extra>",
        showlegend=False,
    )


def _intervals(shown: Sequence[tuple[Head, Score]], places: Sequence[int], behaviour: Behaviour) -> list[go.Scatter]:
    points = go.Scatter(
        x=[score.effect for _, score in shown],
        y=list(places),
        mode="markers",
        error_x={
            "type": "data",
            "visible": any(score.high > score.low for _, score in shown),
            "symmetric": False,
            "array": [score.high - score.effect for _, score in shown],
            "arrayminus": [score.effect - score.low for _, score in shown],
            "thickness": 1.4,
            "width": 3,
            "color": behaviour.colour,
        },
        marker={
            "size": 10,
            "symbol": [_symbol(behaviour, head.rung) for head, _ in shown],
            "color": behaviour.colour,
            "line": {"width": 1.8, "color": behaviour.colour},
        },
        hoverinfo="text",
        hovertext=[_score_text(head, score) for head, score in shown],
        customdata=[head.site for head, _ in shown],
        showlegend=False,
    )
    cores = [(score.effect, place) for (head, score), place in zip(shown, places, strict=True) if head.rung == 2]
    core = go.Scatter(x=[x for x, _ in cores], y=[y for _, y in cores], mode="markers", hoverinfo="skip", showlegend=False)
    return [points, core.update(marker={"size": 4.5, "symbol": behaviour.mark, "color": behaviour.colour})]


def _score_text(head: Head, score: Score) -> str:
    """What matters of one score, for the hover box; a click tells the rest."""
    first = f"<b>{html.escape(head.site)}</b>" + (f" rung {head.rung}: {RUNGS[head.rung]}" if head.rung else "")
    lines = [first, f"effect {numbers.estimate(score.effect, score.low, score.high)} {score.unit}, q {numbers.q_value(score.q)}"]
    if score.measure == "collateral":
        lines.append(f"limit {numbers.rounded(score.bound)}")
    else:
        lines.append(f"score {numbers.rounded(score.value)}, null {numbers.rounded(score.null)}")
    return "<br>".join(lines)


# --- what they look like -----------------------------------------------------------------------------------------


def pattern(tokens: Sequence[str], probabilities: np.ndarray, *, colour: str = "#2F7EC0") -> go.Figure:
    """Show where each token of a text looks.

    A row per query token (the first on top), a column per key token; stronger colour = more attention, weak attention
    lifted. White space is shown as ·, a line break as ⏎. Rows of an excerpt add up to less than one when a head also
    looks at what stood before it.
    """
    names = [html.escape(visible(token), quote=False) for token in tokens]
    places = [f"{name} ({i})" for i, name in enumerate(names)]  # tokens may repeat, places may not
    shown = np.where(np.tri(len(tokens), dtype=bool), probabilities.astype(np.float32), np.nan)
    figure = go.Figure(
        go.Heatmap(
            x=places,
            y=places,
            z=shown,
            zmin=0,
            zmax=1,
            colorscale=[[p, _faded(colour, 0.05 + 0.95 * p**0.6)] for p in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1)],
            showscale=False,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            hovertemplate="query %{y}<br>key %{x}<br>probability %{z:.3f}<extra></extra>",
        )
    )
    ticks = {
        "tickvals": places,
        "ticktext": names,
        "tickfont": {"size": 9, "family": MONOSPACE},
        "showgrid": False,
        "type": "category",
    }
    figure.update_xaxes(**ticks, title="key", tickangle=-90)
    figure.update_yaxes(**ticks, title="query", autorange="reversed")
    return plain(figure, height=pattern_height(len(tokens)))


def pattern_height(tokens: int) -> int:
    """How high a pattern of so many tokens is drawn, in pixels."""
    return max(240, 11 * tokens + 140)


def _faded(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def plain(figure: go.Figure, *, height: int) -> go.Figure:
    """No background of its own, quiet axes, system fonts: the figure takes on the page that it stands on."""
    figure.update_layout(
        height=height,
        autosize=True,
        template=None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 12, "color": INK},
        margin={"l": 8, "r": 10, "t": 8, "b": 8},
        hoverlabel={
            "font": {"family": FONT, "size": 12, "color": "#fff"},
            "bgcolor": "#262b30",
            "bordercolor": "#262b30",
            "align": "left",
        },
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "font": {"size": 11}},
        dragmode=False,
    )
    figure.update_xaxes(automargin=True, fixedrange=True, zeroline=False, ticks="", title_standoff=6)
    figure.update_yaxes(automargin=True, fixedrange=True, zeroline=False, ticks="", title_standoff=6)
    return figure
