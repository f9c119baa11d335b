"""One feed-forward neuron, gathered: for a terminal and as JSON; what is none is refused with what there is."""

import json
from typing import Any

import pytest
from rich.console import Console

from innerworks.atlas import Atlas
from innerworks.errors import UnknownSite
from innerworks.show import page
from innerworks.show.neuron import FAMILIES, QUESTIONS, as_json, neuron_page_of
from innerworks.show.neuron_page import neuron_page


def printed(thing: Any, width: int = 160) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def test_a_page_has_labels_scores_numbers_and_contexts(neuron_atlas: Atlas):
    found = neuron_page_of(neuron_atlas, "L1N3")
    assert (found.layer, found.index, found.layers, found.neurons) == (1, 3, 3, 16)
    assert [(label.behaviour, label.rung) for label in found.labels] == [("position_neuron", 2)]
    assert (
        found.says
        == "Tells where in the text a token stands, whatever the text says: strongest within the first 16 tokens (necessary)"
    )
    assert [one.material for one in found.scores["looks"]][:2] == ["text", "random"]
    assert [one.measure for one in found.scores["breaks"]] == ["harm", "group_harm"]
    assert found.explained[0][0] == "position" and found.explained[0][1] == pytest.approx(0.6)
    assert found.numbers["largest"] == pytest.approx(42.0) and 0 < found.numbers["active"] < 1
    assert found.example is not None and found.example.contexts[0].tokens[2] == " the"


def test_what_was_tried_of_a_group_is_told_of_each_member(neuron_atlas: Atlas):
    for site in ("L1N3", "L2N7"):
        scores = [one for scores in neuron_page_of(neuron_atlas, site).scores.values() for one in scores]
        assert [one.site for one in scores if one.measure == "group_harm"] == ["model"]
    assert not any(one.measure == "ceiling" for scores in neuron_page_of(neuron_atlas, "L1N3").scores.values() for one in scores)


def test_a_neuron_without_labels_still_has_its_numbers(neuron_atlas: Atlas):
    found = neuron_page_of(neuron_atlas, "L2N9")
    assert found.labels == () and found.says == "" and found.example is None and not any(found.scores.values())
    assert {name for name, _ in found.explained} == set(FAMILIES) and found.numbers["site"] == "L2N9"


def test_the_page_in_a_terminal(neuron_atlas: Atlas, evil: str):
    text = printed(neuron_page(neuron_atlas, "L1N3"))
    for part in (
        "L1N3  neuron 3 of 16 in layer 1 of 3",
        "Tells where in the text a token stands",
        "rung 2: necessary",
        "largest activation 42",
        "where the token stands 60.0 %",
        "9.0  at token 7 of fiction/00",
        "it raises ·1 +2.5",
        "and lowers ·dog −1.5",
        "0.30 [0.27, 0.33] nats",
    ):
        assert part.lower() in text.lower(), part
    order = [text.index(asked) for asked in QUESTIONS.values()]
    assert order == sorted(order) and evil not in text and "\u202e" not in text
    below = printed(neuron_page(neuron_atlas, "L0N5"))
    assert "where it is strongest (below zero) it raises" in below and "It was not ablated in this scan." in below
    assert "No label" in printed(neuron_page(neuron_atlas, "L2N9"))


def test_as_json_holds_all_findings_numbers_and_contexts(neuron_atlas: Atlas):
    said = json.loads(json.dumps(as_json(neuron_page_of(neuron_atlas, "L1N3"), neuron_atlas.findings), allow_nan=False))
    assert said["labels"][0]["rung"] == 2 and said["numbers"]["family"] == "position" and said["says"].startswith("Tells where")
    assert {row["site"] for row in said["findings"]} == {"L1N3", "model"} and len(said["findings"]) == 4
    assert said["example"]["contexts"][0]["position"] == 7 and said["example"]["raised"][0] == [" 1", 2.5]


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ("L9N0", "3 layers of 16 neurons, L0N0 to L2N15"),
        ("L1N16", "3 layers of 16 neurons"),
        ("L2H1", "not a feed-forward neuron"),
        ("L2E1N3", "experts have no pages"),
        ("x", "not a place"),
    ],
)
def test_unknown_neurons_are_refused(neuron_atlas: Atlas, site: str, says: str):
    with pytest.raises(UnknownSite, match=says):
        neuron_page_of(neuron_atlas, site)


def test_an_atlas_without_neurons_says_so(atlas: Atlas):
    with pytest.raises(UnknownSite, match="no neurons, only attention heads"):
        neuron_page_of(atlas, "L0N0")


def test_the_summary_tells_of_neurons_beside_heads(neuron_atlas: Atlas, atlas: Atlas):
    text = printed(page.summary(neuron_atlas))
    assert "Of 12 attention heads" in text
    assert "neurons, 3 are of a known kind; of 1 ablated, 1 is shown to be necessary." in text
    assert "on real text none has more than 0.030 share of variance (floor 0.05)" in " ".join(text.split())
    assert "neuron" not in printed(page.summary(atlas))
