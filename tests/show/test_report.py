"""The page: right numbers, harmless whatever the text, and nothing is loaded from anywhere."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from tests.show.conftest import attention

from innerworks.atlas import Atlas
from innerworks.errors import AtlasError
from innerworks.findings import frame
from innerworks.show import report
from innerworks.show.figures import suppression
from innerworks.show.report import content, embedded


@pytest.fixture(scope="module")
def page(atlas: Atlas) -> str:
    return report.render(atlas)


@pytest.fixture(scope="module")
def own(page: str) -> str:
    """The page without plotly.js."""
    return max(re.split(r"<script>/\*\*\n\* plotly\.js.*?</script>", page, flags=re.DOTALL), key=len)


def words(html: str) -> str:
    """What is read, without the tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_headline_and_counts(own: str):
    text = words(own)
    assert "Of 12 attention heads, 4 show a known behaviour; of 3 ablated, 2 are shown to be necessary for it" in text
    assert "3 induction heads were seen; 1 of 2 ablated is shown to be necessary and selective." in text
    assert "No two-back head was found." in text
    assert "an effect of at least 0.061 on real text" in text


def test_numbers_are_printed_with_care(own: str):
    assert "0.51 [0.50, 0.52]" in own
    assert "&lt; 1e-6" in own
    assert not re.search(r">\s*(nan|None|inf)\s*<", own)


def test_causal_evidence_is_shown(own: str):
    text = words(own)
    for part in ("0.98 [0.88, 1.08]", "rung 3 not decided", "harm jointly", "group: L0H3 L1H0"):
        assert part in text


def test_everything_from_model_or_text_is_escaped(own: str, evil: str):
    assert "tiny &lt;model&gt;" in own
    assert evil not in own
    assert "window.evil" not in own.replace("&lt;script&gt;window.evil", "").replace("\\u003cscript\\u003ewindow.evil", "")


def test_nothing_is_loaded(own: str):
    loads = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)|url\(([^)]*)\)|@import""", own)
    targets = {target for pair in loads for target in pair if target}
    ours = ("#", "data:,", "https://arxiv.org/abs/", "https://transformer-circuits.pub/", "\\", "http://evil")
    assert {t for t in targets if not t.startswith(ours)} == set()
    assert not re.search(r"""<[^>]*(?:src|href)=["']?http://evil""", own)  # only as text
    assert "Content-Security-Policy" in own
    assert '<link rel="stylesheet' not in own


def test_data_can_be_read_back(page: str):
    blocks = re.findall(r'<script type="application/json" id="data-([^"]+)">(.*?)</script>', page, flags=re.DOTALL)
    data = {name: json.loads(text) for name, text in blocks}
    assert {"map", "heads", "induction-attention-text", "induction-harm-text", "induction-example-0"} <= data.keys()
    assert len(data["heads"]["rows"]) == 7 * 12 + 6 and len(data["heads"]["labels"]) == 8
    assert data["induction-example-0"] == {"example": 0} and len(data["heads"]["examples"]) == 2
    assert set(re.findall(r'data-figure="([^"]+)"', page)) == data.keys() - {"heads", "pattern"}


def test_page_is_not_too_large(page: str):
    assert len(page.encode()) < 8e6
    assert page.lstrip().startswith("<!doctype html>")
    assert "<title>tiny &lt;model&gt; · innerworks atlas</title>" in page


def test_a_label_with_two_nulls_shows_both_and_no_ablation(joiner_atlas: Atlas):
    own = max(re.split(r"<script>/\*\*\n\* plotly\.js.*?</script>", report.render(joiner_atlas), flags=re.DOTALL), key=len)
    text = words(own)
    assert "1 subword-joiner head was seen." in text and "Rungs 2 and 3 were not tried in this scan" in text
    assert "null: pattern swap" in text and "null: across words" in text and "0.22" in text
    assert "Every ablation tried" not in text and "ablated:" not in text
    figures = set(re.findall(r'data-figure="([^"]+)"', own))
    seen = ("attention", "attention_across", "attention_far")
    assert figures >= {f"subword_joiner-{measure}-text" for measure in seen} | {
        "attention_sink-attention_sink-sink_contrast-text"
    }
    assert "Such a head rests on the first token just" not in text  # how a sink gives way is told, and no label


def test_nothing_found_is_said(empty_atlas: Atlas):
    text = words(report.render(empty_atlas))
    assert "In 12 attention heads, none of the 1 behaviours" in text
    assert "Rungs 2 and 3 were not tried in this scan" in text


def test_write_leaves_one_whole_file(atlas: Atlas, tmp_path: Path):
    assert report.write(atlas) == atlas.path / "report.html"
    path = report.write(atlas, tmp_path / "report.html")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_write_to_nowhere(atlas: Atlas, tmp_path: Path):
    with pytest.raises(AtlasError, match="could not be written"):
        report.write(atlas, tmp_path / "no" / "such" / "report.html")


# --- every kind ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rich(rich_atlas: Atlas) -> str:
    return report.render(rich_atlas)


def data_of(page: str) -> dict:
    """What the script knows of all heads."""
    found = re.search(r'<script type="application/json" id="data-heads">(.*?)</script>', page, flags=re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_every_kind_has_its_section_and_families_have_one(rich: str):
    text = words(rich)
    ids = re.findall(r'<section id="([^"]+)"', rich)
    for name in ("copying", "anti_copying", "copy_suppression", "syntactic", "domain", "attention_sink", "composition"):
        assert ids.count(name) == 1
    assert not any(":" in name for name in ids) and "successor" not in ids  # which was not found
    assert "3 of 6 relations have heads of their own (2 heads in all)." in text
    assert "1 of 2 domains has a head of its own (1 head in all); 1 of them is shown to be necessary." in text
    assert "No successor head was found." in text and "1 copying head was seen." in text
    assert "How heads work together" in text and "the strongest is L2H1 with L0H3 , 0.300 score." in text
    assert (
        'data-figure="syntactic-attention-text"' in rich and 'data-figure="composition-composition-k-composition-weights"' in rich
    )


def test_every_head_that_is_named_leads_to_its_page(rich: str):
    table = re.search(r'<section id="copying".*?<tbody>(.*?)</tbody>', rich, flags=re.DOTALL)
    assert table is not None and '<a class="head" href="#L2H1">L2H1</a>' in table[1]
    assert content.linked("<L0H3, L10H12>") == (
        '&lt;<a class="head" href="#L0H3">L0H3</a>, <a class="head" href="#L10H12">L10H12</a>&gt;'
    )


def test_what_examples_write_is_escaped_too(rich: str, evil: str):
    assert rich.count(evil) == 0 and "raises" in words(rich)


def test_partners_and_layers_are_among_what_the_script_knows(rich: str):
    data = data_of(rich)
    rows = [
        dict(zip(("head", "series"), row, strict=False)) | {"others": row[10] if len(row) > 10 else []} for row in data["rows"]
    ]
    me, other = data["heads"].index("L2H1"), data["heads"].index("L0H3")
    assert any(row["head"] == me and row["others"] == [other] for row in rows)
    assert sum(row["head"] == "L2" for row in rows) == 1 and sum(row["head"] == "model" for row in rows) == 1
    (nsubj,) = [one for one in data["examples"] if data["behaviours"][one[1]][0] == "syntactic:nsubj"]
    assert data["heads"][nsubj[0]] == "L1H0" and nsubj[4] == 6 and len(nsubj[3]) == 10


def test_large_atlases_embed_labels_first_and_say_what_is_left_out(rich_atlas: Atlas, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "ROWS", 60)
    data = data_of(report.render(rich_atlas))
    assert len(data["rows"]) == 60 and data["left_out"] == rich_atlas.findings.height - 60 and float(data["below"]) < 1
    kept = {(row[0], data["series"][row[1]][0]) for row in data["rows"]}
    assert all((head, behaviour) in kept for head, behaviour, *_ in data["labels"])


def test_a_figure_is_plugged_in_with_one_line(rich_atlas: Atlas, monkeypatch: pytest.MonkeyPatch):
    def drawn(findings, arrays=None):
        shown = go.Figure(go.Scatter(x=[findings.height], y=[1]))
        return shown.update_layout(title="given" if arrays is None else "with arrays")

    one = content.Drawing(title="A further figure", says="", draw=drawn)
    other = content.Drawing(title="One that needs arrays", says="", draw=drawn, arrays="no_such_study")
    empty = content.Drawing(title="One without data", says="", draw=lambda findings: go.Figure())
    monkeypatch.setattr(content, "FIGURES", {"syntactic": (one, other, empty), "composition": (one,)})
    page = report.render(rich_atlas)
    assert 'data-figure="syntactic-further-0"' in page and 'data-figure="composition-further-0"' in page
    assert "One that needs arrays" not in page and "One without data" not in page


def test_a_figure_of_what_was_not_measured_is_left_out(rich_atlas: Atlas):
    assert not {"value_norm", "norm_ratio"} & set(rich_atlas.findings["measure"])  # as where weights cannot be read
    page = report.render(rich_atlas)
    assert 'id="attention_sink"' in page and "attention_sink-further" not in page and "massive_activation-further" not in page


def test_plugged_in_figures_take_what_their_studies_keep():
    points = np.array([[[0.3, -0.1, 0.2, 1.0], [0.2, 0.0, 0.0, 0.0]]])
    kept = {
        "suppression": (
            {
                "heads": np.array([[1, 0]]),
                "by_probability": np.ones((3, 1, 2, 3)),
                "points": points,
                "bins": np.ones((2, 3, 15, 3)),
            },
            {"bins": [0.0, 0.5, 1.1], "runs": ["clean", "L1H0"]},
        ),
        "composition": ({}, {}),
        "streaming": ({"divergence/sinks_4": np.ones((4, 16))}, {}),
        "geometry": ({"z": np.ones((2, 3)), "turned": np.ones(2)}, {}),
    }
    suppressors = [
        replace(attention("copy_suppression", "text", layer, head), measure=measure, effect=effect)
        for (layer, head), effects in {(1, 0): (0.2, 0.1), (0, 1): (0.5, 0.05)}.items()
        for measure, effect in zip(("attention", "attention_unpredicted"), effects, strict=True)
    ]
    for name, drawings in content.FIGURES.items():
        for drawing in (one for one in drawings if one.arrays):
            given = frame(suppressors if name == "copy_suppression" else [])
            figure = drawing.draw(given, *kept[drawing.arrays])
            assert bool(figure.data) == (drawing.arrays != "composition")
            assert name != "copy_suppression" or figure.layout.title.text == "L1H0"
    (_, about), *_ = kept.values()
    assert not suppression.reliability_of_nearest(frame(suppressors), {}, {**about, "runs": ["clean"]}).data  # without a label
