"""In the terminal: one head, and the summary at the end of a scan."""

import pytest
from rich.console import Console, RenderableType

from innerworks.atlas import Atlas
from innerworks.errors import UnknownSite
from innerworks.show import page


def printed(thing: RenderableType, width: int = 120) -> str:
    console = Console(width=width, record=True, force_terminal=False, file=None, quiet=False)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def test_head_page(atlas: Atlas):
    text = printed(page.head_page(atlas, "L2H1"))
    for part in (
        "● induction  rung 3: selective (alone)",
        "first token (sink)",
        "0.51 [0.50, 0.52]",
        "harm alone",
        "0.98 [0.88, 1.08]",
    ):
        assert part in text
    assert "·cat looks at ⏎  0.80" in text
    assert "\u202e" not in text


def test_head_page_of_a_label_with_two_nulls(joiner_atlas: Atlas):
    text = printed(page.head_page(joiner_atlas, "L1H0"), width=200)
    assert "○ subword joiner  rung 1: seen" in text and "Ablated" not in text
    assert "subword joiner, against the same offsets across words" in text


def test_page_of_a_head_without_labels(atlas: Atlas):
    text = printed(page.head_page(atlas, "L0H0.pattern"))
    assert "No label" in text
    assert "two back" in text


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ("L9H0", "3 layers of 4 heads, L0H0 to L2H3"),
        ("L2N5", "not an attention head"),
        ("L2", "not an attention"),
        ("x", "not a place"),
    ],
)
def test_unknown_heads_are_refused(atlas: Atlas, site: str, says: str):
    with pytest.raises(UnknownSite, match=says):
        page.head_page(atlas, site)


def test_summary(atlas: Atlas):
    text = printed(page.summary(atlas))
    assert "Of 12 attention heads, 4 show a known behaviour" in text
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}
    assert rows["induction"][1:4] == ["3", "1", "1"]
    assert rows["first token (sink)"][3:6] == ["3", "–", "–"]
    assert "No two-back head was found." in text


def test_summary_of_nothing(empty_atlas: Atlas):
    assert "In 12 attention heads, none" in printed(page.summary(empty_atlas))
