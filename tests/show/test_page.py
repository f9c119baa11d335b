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


def test_the_page_of_a_rich_head(rich_atlas: Atlas):
    text = printed(page.head_page(rich_atlas, "L2H1"), width=160)
    for part in (
        "L2H1  head 1 of 4 in layer 2 of 3",
        "● induction  rung 3: selective (alone)",
        "○ copying  rung 1: seen  raises the token it looks at",
        "Where it looks",
        "·cat looks at ⏎  0.80",
        "at ·cat (induction) it raises ⏎ +2.5",
        "and lowers ·dog −1.5",
        "by its weights, reading a token raises most: ·cat → ·cat",
        "✓ loses its match without L0H3 in its keys",
        "✓ reads L0H0 in its keys  0.250 score",
        "Its layer, L2",
        "Not listed, below half of their floors: 6 syntactic relations, 2 domains.",
    ):
        assert part in text, part
    order = [text.index(part) for part in ("Where it looks", "What it writes", "What breaks without it", "Its partners")]
    assert order == sorted(order) and "\u202e" not in text


def test_the_page_of_a_partner_says_it_the_other_way_round(rich_atlas: Atlas):
    text = printed(page.head_page(rich_atlas, "L0H3"), width=160)
    assert "carries, in the keys, the match of L2H1" in text
    assert "is read by L2H1 in its keys" in text and "was ablated jointly with L1H0" in text


def test_the_page_of_a_member_of_a_family(rich_atlas: Atlas):
    text = printed(page.head_page(rich_atlas, "L1H0"), width=160)
    assert "○ subject → head (nsubj)  rung 1: seen (1 word back)" in text and "○ head → determiner (det<)" in text
    assert "object → head" not in text.replace("subject → head", "")  # far below its floor: counted, not listed
    assert "4 syntactic relations" in text


def test_summary_folds_families_and_tells_facts(rich_atlas: Atlas):
    text = printed(page.summary(rich_atlas), width=160)
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}
    assert rows["syntactic relations"][2:5] == ["2", "–", "–"] and "nsubj" in rows["syntactic relations"]
    assert rows["domains"][1:4] == ["1", "1", "0"] and rows["copying"][1:4] == ["1", "–", "–"]
    assert "nsubj →" not in text and "How heads work together" in text
    assert "Massive activation (on real text): 2 of 3 above the floor of 100" in text
    assert "Loss without sinks (on real text), model: 2.50 [2.25, 2.75] nats, above the floor of 0.1." in text
