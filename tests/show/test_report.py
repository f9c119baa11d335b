"""The page: right numbers, harmless whatever the text, and nothing is loaded from anywhere."""

import json
import re
from pathlib import Path

import pytest

from innerworks.atlas import Atlas
from innerworks.errors import AtlasError
from innerworks.show import report


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
    assert {t for t in targets if not t.startswith(("#", "data:,", "https://arxiv.org/abs/", "\\", "http://evil"))} == set()
    assert not re.search(r"""<[^>]*(?:src|href)=["']?http://evil""", own)  # only as text
    assert "Content-Security-Policy" in own
    assert '<link rel="stylesheet' not in own


def test_data_can_be_read_back(page: str):
    blocks = re.findall(r'<script type="application/json" id="data-([^"]+)">(.*?)</script>', page, flags=re.DOTALL)
    data = {name: json.loads(text) for name, text in blocks}
    assert {"map", "every", "induction-attention-text", "induction-harm-text", "induction-example-0"} <= data.keys()
    assert len(data["every"]["rows"]) == 4 * 12
    assert set(re.findall(r'data-figure="([^"]+)"', page)) == data.keys() - {"every"}


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
    assert figures >= {f"subword_joiner-{measure}-text" for measure in seen} and not any("sink" in one for one in figures)


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
