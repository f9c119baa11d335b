"""The chapter on neurons in the page: verdicts, where they are, and every neuron's numbers in a few bytes."""

import base64
import json
import re
import zlib

import numpy as np
import plotly.graph_objects as go
import pytest

from innerworks.atlas import Atlas
from innerworks.show import report
from innerworks.show.figures.neurons import depth
from innerworks.show.report import content
from innerworks.show.report import embedded_neurons as embedding
from innerworks.show.verdicts import kindred, verdicts


@pytest.fixture(scope="module")
def page(neuron_atlas: Atlas) -> str:
    return report.render(neuron_atlas)


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data-neurons">(.*?)</script>', page, flags=re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def column(data: dict, name: str, kind: type) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(data["columns"][name])), dtype=kind)


def test_the_chapter_tells_each_kind_found_or_not(page: str):
    text = words(page)
    assert "Of 48 feed-forward neurons, 3 are of a known kind; of 1 ablated, 1 is shown to be necessary." in text
    assert page.count('id="neurons"') == page.count('id="every-neuron"') == 1
    for kind in ("position_neuron", "token_class_neuron", "previous_token_neuron"):
        assert page.count(f'<details class="kind" id="{kind}"') == 1
    assert "on real text none has more than 0.030 share of variance" in text
    assert '<a class="head" href="#L1N3">L1N3</a>' in page


def test_an_atlas_without_neurons_has_no_such_chapter(atlas: Atlas):
    page = report.render(atlas)
    assert 'id="neurons"' not in page and 'id="data-neurons"' not in page and 'href="#neurons"' not in page


def test_numbers_survive_being_packed(page: str, neuron_atlas: Atlas):
    data, table = data_of(page), neuron_atlas.neurons
    places = column(data, "place", np.uint32).astype(int).cumsum() - 1
    assert places.tolist() == (table["layer"] * 16 + table["neuron"]).to_list()
    for name in ("largest", "writes"):
        assert np.allclose(column(data, name, np.float32), table[name].to_numpy(), rtol=1 / 200)
    assert np.allclose(column(data, "active", np.int16) / 1000, table["active"].to_numpy(), atol=6e-4)
    shares = [column(data, f"share{i}", np.int16) / 1000 for i in range(len(data["families"]))]
    assert np.allclose(np.max(shares, axis=0).clip(min=0), table["explained"].to_numpy(), atol=6e-4)


def test_labels_descriptions_and_contexts_are_embedded_and_harmless(page: str, evil: str):
    data = data_of(page)
    assert (data["layers"], data["across"]) == (3, 16) and {label[0] for label in data["labels"]} >= {19, 5}
    assert data["says"]["19"].startswith("Tells where in the text a token stands")
    (one,) = [example for example in data["examples"] if example[0] == 5]
    unit, tokens, at, position, value = one[2][0]
    assert (data["texts"][unit], data["tokens"][tokens[at]], position, value) == ("fiction/00", "·12", 100, "−9.0")
    assert evil not in page and one[3][0] == ["·1", "+2.5"]


def test_of_very_many_neurons_those_with_labels_and_the_best_explained_are_embedded(
    neuron_atlas: Atlas, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedding, "MOST", 10)
    found = verdicts(neuron_atlas.findings, "neurons")
    data = embedding.embedded_neurons(neuron_atlas, found, [])
    places = column(data, "place", np.uint32).astype(int).cumsum() - 1
    assert len(places) == 10 and data["left_out"] == 38 and {19, 5} <= set(places.tolist()) and (np.diff(places) > 0).all()


def test_figures_that_are_plugged_in_for_a_kind_are_drawn(neuron_atlas: Atlas, monkeypatch: pytest.MonkeyPatch):
    one = content.Drawing(title="One more", says="", draw=lambda findings: go.Figure(go.Scatter(x=[1], y=[1])))
    monkeypatch.setattr(content, "FIGURES", {"position_neuron": (one,)})
    assert 'data-figure="position_neuron-further-0"' in report.render(neuron_atlas)


def test_depth_has_a_row_per_kind_and_a_disc_per_layer(neuron_atlas: Atlas):
    figure = depth(kindred(verdicts(neuron_atlas.findings, "neurons")), 3)
    shown = {trace.hovertext[0]: list(trace.x) for trace in figure.data}
    assert [1] in shown.values() and [0] in shown.values()
    assert all("neuron" in text for text in shown)
