"""What is shown of neurons: the right ones, the right stretches of text, and what they write, against a plain computation."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

import families
from innerworks.model import Model
from innerworks.neurons import examples
from innerworks.text import Reading
from innerworks.text.reading import Unit, Window
from invented_neurons import row


class Numbers(PreTrainedTokenizerBase):
    """A tokenizer that spells each token as its number; the last rows of the vocabulary only pad."""

    def __init__(self) -> None:
        pass

    def decode(self, tokens: list[int]) -> str:  # type: ignore[override]
        return " ".join(map(str, tokens))

    def __len__(self) -> int:
        return families.VOCAB - 7


def tiny(family: str) -> Model:
    return Model(families.build(family), Numbers(), certified=False)


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def model(request: pytest.FixtureRequest) -> Model:
    return tiny(request.param)


def reading() -> Reading:
    """Three documents, the first of two windows."""
    texts = {0: [range(2, 32), range(40, 60)], 1: [range(5, 25)], 2: [range(60, 90)]}
    units = tuple(Unit(id=f"doc/{i}", stratum="a", material="text", half="discovery") for i in texts)
    none: tuple[Any, ...] = ()
    windows = [
        Window(unit=unit, tokens=tuple(tokens), words=none, kinds=none, alike=unit)
        for unit, some in texts.items()
        for tokens in some
    ]
    return Reading(units=units, windows=tuple(windows))


def arrays(model: Model) -> dict[str, np.ndarray]:
    """L1N3 is strongest below zero: at token 5 of the second window of the first document, then at the end of the last."""
    shape = (model.anatomy.layers, model.anatomy.neurons)
    kept = {"sign": np.ones(shape, dtype=np.int8)}
    for name in ("top", "bottom"):
        kept |= {f"{name}_{what}": np.zeros((*shape, 3), dtype=np.int32) for what in ("window", "position")}
        kept |= {f"{name}_unit": np.full((*shape, 3), -1), f"{name}_value": np.zeros((*shape, 3), dtype=np.float32)}
    kept["sign"][1, 3] = -1
    for name, values in {"unit": (0, 2, -1), "window": (1, 0, 0), "position": (5, 29, 0), "value": (-9.0, -4.0, 0.0)}.items():
        kept[f"bottom_{name}"][1, 3] = values
    return kept


def test_labels_come_first_then_what_is_nearest_to_one():
    findings = [
        row("position_neuron", "L0N1", "variance_explained", 0.04),
        row("position_neuron", "L0N2", "variance_explained", 0.06),
        row("position_neuron", "L0N3", "variance_explained", 0.01),
        row("agreement", "L0N4", "contribution", 0.06, rung=3),
        row("agreement", "model", "ceiling", 9.0),
        replace(row("agreement", "L0N5", "contribution", 9.0), chapter="heads"),
    ]
    assert examples.worth_showing(findings) == [(0, 4), (0, 2), (0, 1), (0, 3)]
    assert examples.worth_showing(findings, most=2) == [(0, 4), (0, 2)]


def test_contexts_are_the_stretches_of_text_around_the_strongest(model: Model):
    found = examples.shown(model, reading(), arrays(model), [row("position_neuron", "L1N3", "variance_explained", 0.6)])
    (one,) = found
    assert (one.site, one.side, len(one.contexts)) == ("L1N3", -1, 2)
    first, last = one.contexts
    assert (first.unit, first.position, first.value) == ("doc/0", 5, -9.0) and first.tokens[first.at] == "45"
    assert first.tokens == tuple(str(token) for token in range(40, 50))
    assert last.tokens == tuple(str(token) for token in range(75, 90)) and last.tokens[last.at] == "89"


def test_what_is_raised_is_what_the_weights_say(model: Model):
    label = [row("position_neuron", site, "variance_explained", 0.6) for site in ("L1N3", "L0N2")]
    found = {one.site: one for one in examples.shown(model, reading(), arrays(model), label)}
    for site, (layer, neuron, side) in {"L1N3": (1, 3, -1.0), "L0N2": (0, 2, 1.0)}.items():
        wrote = side * model.weights.W_out(layer, fold=True)[neuron].double()
        logits = (wrote @ model.weights.W_U(fold=True).double())[: families.VOCAB - 7]
        logits = logits - logits.mean()
        one, order = found[site], logits.argsort(descending=True).tolist()
        assert [word for word, _ in one.raised] == [str(token) for token in order[:5]]
        assert [word for word, _ in one.lowered] == [str(token) for token in order[::-1][:5]]
        assert one.raised[0][1] == pytest.approx(float(logits.max()), abs=2e-4)


def test_without_arrays_there_is_still_what_it_writes(model: Model):
    (one,) = examples.shown(model, reading(), {}, [row("agreement", "L0N2", "contribution", 0.6)])
    assert one.contexts == () and one.side == 1 and len(one.raised) == 5


def test_a_stream_that_is_no_sum_shows_no_writing():
    post = tiny("opt-post-norm")
    assert not post.anatomy.sums
    (one,) = examples.shown(post, reading(), arrays(post), [row("position_neuron", "L1N3", "variance_explained", 0.6)])
    assert one.raised == one.lowered == () and len(one.contexts) == 2


def test_nothing_to_show():
    assert examples.shown(tiny("llama"), reading(), {}, []) == []
