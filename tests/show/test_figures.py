"""Every figure shows what is in the table: no more, no less."""

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from innerworks.atlas import Atlas, Example
from innerworks.show.facts import facts
from innerworks.show.figures import families, heads
from innerworks.show.verdicts import verdicts

ALL = 12  # heads of the invented model


def trace(figure: go.Figure, name: str) -> go.Scatter:
    """The trace of that name that is in the legend."""
    return next(one for one in figure.data if one.name == name and one.showlegend is not False)


def test_map_has_a_mark_per_label_and_the_rung_is_visible(atlas: Atlas):
    figure = heads.map_of_heads(atlas.heads)
    induction = trace(figure, "induction")
    assert dict(zip(zip(induction.y, np.round(induction.x), strict=True), induction.marker.symbol, strict=True)) == {
        (2, 1): "diamond",
        (2, 2): "diamond-open",
        (1, 0): "diamond-open",
    }
    core = next(one for one in figure.data if one.legendgroup == "previous_token" and not one.showlegend)
    assert (list(core.x), list(core.y)) == ([3], [0])


def test_map_puts_two_labels_of_a_head_side_by_side(atlas: Atlas):
    figure = heads.map_of_heads(atlas.heads)
    places = [
        x
        for name in ("induction", "previous token")
        for x, y in zip(trace(figure, name).x, trace(figure, name).y, strict=True)
        if y == 1
    ]
    assert sorted(places) == pytest.approx([-0.18, 0.18])


def test_map_keeps_the_common_label_behind_and_names_every_head(atlas: Atlas):
    figure = heads.map_of_heads(atlas.heads)
    assert figure.data[0].name == "first token (sink)"
    hover = figure.data[-1]
    assert len(hover.customdata) == ALL
    text = dict(zip(hover.customdata, hover.hovertext, strict=True))
    assert "induction, rung 3 (selective): real text 0.51 [0.50, 0.52]" in text["L2H1"]
    assert "first token" in text["L2H1"]
    assert "no label" in text["L0H0"]


def test_effects_show_intervals_floor_and_all_other_heads(atlas: Atlas):
    figure = heads.effects(atlas.findings, "induction", material="random")
    strip, points = figure.data[0], figure.data[1]
    assert len(strip.x) == ALL - 3
    assert list(points.x) == pytest.approx([0.52, 0.51, 0.4])
    assert list(points.error_x.array) == pytest.approx([0.01] * 3)
    assert {shape.x0 for shape in figure.layout.shapes} == {0, 0.05}
    assert figure.layout.yaxis.ticktext[:2] == ("L2H2", "L2H1")


def test_effects_against_a_second_null_put_unlabelled_heads_with_the_others(joiner_atlas: Atlas):
    figure = heads.effects(joiner_atlas.findings, "subword_joiner", measure="attention_across")
    assert figure.layout.yaxis.ticktext == ("L1H0", "11 others") and "score − null" in figure.layout.xaxis.title.text
    assert list(figure.data[1].x) == pytest.approx([0.225]) and len(figure.data[0].x) == ALL - 1


def test_effects_of_ablations(atlas: Atlas):
    figure = heads.effects(atlas.findings, "induction", measure="harm")
    assert list(figure.data[0].x) == pytest.approx([0.98, 0.001])
    assert "nats" in figure.layout.xaxis.title.text


def test_harm_elsewhere_is_held_against_its_limit(atlas: Atlas):
    figure = heads.effects(atlas.findings, "induction", measure="collateral")
    assert {shape.x0 for shape in figure.layout.shapes} == {0, 0.01}
    assert "limit 0.010" in figure.data[0].hovertext[0]


def test_harm_of_a_group_is_shown_once(atlas: Atlas):
    rows = atlas.findings.filter(pl.col("measure") == "joint_harm")
    twice = pl.concat([atlas.findings, rows.with_columns(pl.lit("L1H0").alias("site"), pl.lit(0, pl.Int32).alias("index"))])
    assert heads.effects(twice, "previous_token", measure="joint_harm").layout.yaxis.ticktext == ("2 heads",)


def test_effects_of_a_behaviour_not_found_and_of_nothing(atlas: Atlas):
    assert heads.effects(atlas.findings, "offset_2").layout.yaxis.ticktext == ("12 heads",)
    assert len(heads.effects(atlas.findings, "no_such").data) == 0


def test_effects_put_the_weaker_labels_with_the_others(atlas: Atlas):
    figure = heads.effects(atlas.findings, "induction", most=1)
    assert figure.layout.yaxis.ticktext == ("L2H2", "11 others")


def test_pattern_shows_repeated_and_hostile_tokens(example: Example):
    figure = heads.pattern(example.tokens, example.pattern)
    picture = figure.data[0]
    assert len(set(picture.x)) == len(example.tokens)  # repeated tokens keep their own places
    assert figure.layout.xaxis.ticktext[:3] == ("The", "·cat", "⏎")
    assert not any("<" in text for text in (*figure.layout.xaxis.ticktext, *picture.x))
    assert picture.z[6, 2] == pytest.approx(0.8)
    assert np.isnan(picture.z[0, 1])  # the future is not drawn


# --- families and pairs -------------------------------------------------------------------------------------------


def test_the_map_has_one_mark_for_all_relations_of_a_head(rich_atlas: Atlas):
    figure = heads.map_of_heads(rich_atlas.findings)
    relations = trace(figure, "syntactic relations")
    assert sorted(zip(relations.y, np.round(relations.x), strict=True)) == [(0, 2), (1, 0)]
    assert set(relations.marker.symbol) == {"triangle-right-open"}
    text = dict(zip(figure.data[-1].customdata, figure.data[-1].hovertext, strict=True))
    assert "subject → head (nsubj)" in text["L1H0"] and "head → determiner (det&lt;)" in text["L1H0"]


def test_best_of_each_has_a_row_per_relation_the_labelled_on_top(rich_atlas: Atlas):
    figure = families.best_of_each(rich_atlas.findings, "syntactic", measure="attention")
    others, best, names = figure.data
    assert len(best.x) == 6 and set(best.customdata[-3:]) == {"L1H0", "L0H2"} and len(others.x) == 6 * families.OTHERS
    assert list(best.marker.symbol) == ["circle-open"] * 3 + ["circle"] * 3
    assert best.error_x.visible and list(names.text) == [f" {site}" for site in best.customdata]
    assert {shape.x0 for shape in figure.layout.shapes} == {0, 0.1}
    assert families.best_of_each(verdicts(rich_atlas.findings), "syntactic", measure="attention") == figure


def test_best_of_each_of_nothing(rich_atlas: Atlas):
    assert len(families.best_of_each(rich_atlas.findings, "syntactic", measure="no_such").data[0].x) == 0


def test_the_strongest_pairs_are_named(rich_atlas: Atlas):
    told = next(one for one in facts(rich_atlas.findings) if one.behaviour.name == "composition")
    figure = families.strongest(told, measure="composition", material="weights", behaviour="composition:k")
    assert figure.layout.yaxis.ticktext[-1] == "L2H1 with L0H3" and list(figure.data[0].x) == pytest.approx([0.2, 0.25, 0.3])
    assert not figure.data[0].error_x.visible  # weights are no sample


def test_figures_of_weights_show_no_intervals(rich_atlas: Atlas):
    figure = heads.effects(rich_atlas.findings, "copying", material="weights", measure="eigenvalue")
    assert figure.layout.yaxis.ticktext == ("L2H1", "11 others") and not figure.data[1].error_x.visible
