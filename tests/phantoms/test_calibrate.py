"""Calibration finds what was planted, and takes no decoy for the part that it imitates."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from innerworks.phantoms.calibrate import FILLERS, Calibration, Recall, calibrate
from innerworks.phantoms.kits import KITS

IMITATES = {
    "fixed_gap": "induction",
    "local_window": "previous_token",
    "same_first_letter": "duplicate_token",
}
IMITATED = {  # by decoys among neurons
    "comma": "position_neuron",
    "many_words": "alphabet_neuron",
    "current_word": "previous_token_neuron",
    "loud": "entropy",
    "other_logits": "token_frequency",
    "rare": "dead_neuron",
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def steps() -> list:
    return []


@pytest.fixture(scope="module")
def once(steps: list) -> Calibration:
    return calibrate(draws=1, kits=("patterns",), progress=steps.append)


def check(found: Calibration) -> None:
    """Everything planted was found, and no part is labelled as what it is not."""
    assert found.missed == found.mistaken == ()
    for planted, recall in found.recall.items():
        assert found.labels.get((planted, planted), 0) == found.parts[planted] == recall.found == recall.planted


def test_everything_planted_is_found_and_no_decoy_is_taken_for_it(once: Calibration) -> None:
    check(once)
    assert once.parts["previous_token"] == 4 and once.parts["induction"] == once.parts["duplicate_token"] == 2
    for decoy, part in IMITATES.items():
        assert once.parts[decoy] == 2 and (decoy, part) not in once.labels


@pytest.mark.parametrize(
    ("kit", "architecture", "kinds"),
    [
        ("offsets", "gpt2", {"current_token", "offset_2", "offset_3", "subword_joiner"}),
        ("writing", "llama", {"copying", "anti_copying", "successor"}),
    ],
)
def test_heads_of_other_kits_are_found_and_their_decoys_are_not(kit: str, architecture: Any, kinds: set[str]) -> None:
    found = calibrate(draws=1, kits=(kit,), architectures=(architecture,), causal=False)
    check(found)
    assert kinds <= set(found.measured)


@pytest.mark.parametrize(
    ("kit", "architecture"), [("neurons", "gpt2"), pytest.param("neurons", "llama", marks=pytest.mark.slow), ("relu", "gpt2")]
)
def test_planted_neurons_are_found_and_no_decoy_is_taken_for_what_it_imitates(kit: str, architecture: Any) -> None:
    found = calibrate(draws=1, kits=(kit,), architectures=(architecture,))
    assert found.missed == ()
    for planted, recall in found.recall.items():
        assert found.labels[planted, planted] == recall.found == recall.planted > 0
    for decoy, part in IMITATED.items():
        assert (decoy, part) not in found.labels
    fillers = {kind: found.labels.get((FILLERS["neurons"], kind), 0) for kind in found.measured if kind != "alphabet_neuron"}
    assert found.parts[FILLERS["neurons"]] >= 256 and all(count <= 5 for count in fillers.values()), fillers


def test_recall_has_an_exact_interval() -> None:
    """Clopper and Pearson: known values, and both ends where everything or nothing was found."""
    assert (Recall(found=5, planted=5).low, Recall(found=5, planted=5).high) == (pytest.approx(0.4782, abs=1e-4), 1.0)
    assert (Recall(found=0, planted=5).low, Recall(found=0, planted=5).high) == (0.0, pytest.approx(0.5218, abs=1e-4))
    assert Recall(found=59, planted=60).low == pytest.approx(0.9106, abs=1e-3)


def test_the_wiring_is_found_to_be_necessary_and_the_lone_head_is_not(once: Calibration) -> None:
    assert once.rungs["induction", 2] == 2 and once.rungs["duplicate_token", 2] == 2
    assert once.rungs["previous_token", 2] == 2  # of four: nothing depends on the lone one


def test_every_head_is_counted_once_as_what_it_is(once: Calibration) -> None:
    assert once.phantoms == 2 and sum(once.parts.values()) == 9 * 4 + 6 * 8 and once.parts[FILLERS["heads"]] >= 2 * 24
    for truth, count in once.parts.items():
        given = sum(n for (of, label), n in once.labels.items() if of == truth)
        assert given >= count  # a part may have two labels, but none has neither label nor `nothing`


def test_it_reports_progress_and_can_be_said_in_words_and_as_json(once: Calibration, steps: list) -> None:
    from rich.console import Console

    assert [(step.done, step.total) for step in steps] == [(1, 2), (2, 2)]
    data = json.loads(json.dumps(once.as_dict()))
    assert data["phantoms"] == 2 and data["missed"] == []
    console = Console(record=True, width=300, file=io.StringIO())
    console.print(once.in_words())
    said = console.export_text()
    assert (
        "2 phantoms" in said
        and "Missed: nothing" in said
        and "Mistaken: nothing" in said
        and all(truth in said for truth in once.parts)
    )


@pytest.mark.slow
def test_in_sixty_phantoms_of_each_kit_of_heads_everything_planted_is_found() -> None:
    check(calibrate(draws=30, kits=[name for name, kit in KITS.items() if kit.chapter == "heads"]))
