"""What every neuron does on average, which a metric might depend on, and which it does: against plain computations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from innerworks.model import Model
from innerworks.model.losses import counted, document_losses
from innerworks.neurons.means import NeuronMeans, neuron_reference
from innerworks.neurons.necessity import decided, note_of, packed, tried, unpacked
from innerworks.neurons.screen import attributions
from innerworks.scan.engine import begin, observe
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch


@pytest.fixture
def reading(make_reading: Callable[..., Reading]) -> Reading:
    return make_reading(documents=28)


def losses(model: Model) -> Callable[[TextBatch, Tensor], Tensor]:
    return lambda batch, final: document_losses(model, final, batch)


def batches(reading: Reading, half: str) -> list[TextBatch]:
    return [batch for batch in reading.batches(half) if batch.material == "text"]  # type: ignore[arg-type]


def reference_of(model: Model, reading: Reading):
    one = NeuronMeans()
    return neuron_reference(model, observe(model, reading, [one], begin(model, reading, [one])).states[one.name], "text")


def test_means_are_those_of_all_tokens_after_the_first(model: Model, reading: Reading):
    found, rows = reference_of(model, reading), []
    for batch in batches(reading, "discovery"):
        seen = model.run(batch.tokens, mask=batch.mask, record="L1.neurons", logits="none")["L1.neurons"]
        rows.append(seen[:, 1:][batch.mask[:, 1:]])
    plain = torch.cat(rows)
    torch.testing.assert_close(found.mean.of(Site(layer=1, neuron=3)), plain[:, 3].mean())
    np.testing.assert_allclose(found.spread[1], plain.std(dim=0, correction=0).numpy(), rtol=1e-4, atol=1e-7)
    norms = model.weights.W_out(1).float().norm(dim=-1).detach().numpy()
    np.testing.assert_allclose(found.removed[1], found.spread[1] * norms, rtol=1e-4, atol=1e-9)


def test_attributions_are_the_slope_of_the_metric(model: Model, reading: Reading):
    batch = batches(reading, "discovery")[0]
    mean = reference_of(model, reading).mean
    found = attributions(model, [batch], mean, losses(model))
    site, step = Site(layer=1, neuron=5), 1e-2
    plain = model.run(batch.tokens, mask=batch.mask, record=str(site), logits="none")
    towards = plain[site] + step * (mean.of(site) - plain[site])

    def moved(activation: Tensor, queries: slice) -> Tensor:
        edited = activation.clone()
        edited[:, 1:, 5] = towards[:, 1:]
        return edited

    changed = model.run(batch.tokens, mask=batch.mask, watch=[(Site(layer=1, kind="neurons"), moved)], logits="none")
    rise = document_losses(model, changed.final, batch) - document_losses(model, plain.final, batch)
    np.testing.assert_allclose(found[:, 1, 5] * step, rise.detach().numpy(), rtol=0.2, atol=2e-6)


def test_a_neuron_that_the_loss_depends_on_is_necessary_and_others_are_not(tiny_hf, tiny_tokenizer, reading: Reading):
    """One neuron is made to do what lowers the loss: it writes the unembedding of a token where that token comes next."""
    hf: Any = tiny_hf("gpt2")
    model = Model(hf, tiny_tokenizer, name="one loud neuron")
    batch = batches(reading, "confirmation")[0]
    common = int(batch.tokens[batch.mask].bincount().argmax())
    with torch.no_grad():
        block = hf.transformer.h[-1].mlp
        block.c_fc.weight[:, 7], block.c_fc.bias[7] = 0.0, 3.0
        block.c_fc.weight[0, 7] = 0.5  # not quite constant, so that its mean is not all that it does
        block.c_proj.weight[7] = 3.0 * hf.lm_head.weight[common] / hf.lm_head.weight[common].norm()
    found = reference_of(model, reading)
    zero = type(found.mean)(values={"neurons": torch.zeros_like(found.mean.values["neurons"])}, over="nothing: zero")
    some, last = batches(reading, "confirmation"), model.anatomy.layers - 1
    strata = [reading.units[unit].stratum for batch in some for unit in batch.units.tolist()]

    def frequent(batch: TextBatch, final: Tensor) -> Tensor:
        return document_losses(model, final, batch, rows=batch.tokens.roll(-1, dims=1) == common)

    tries = tried(
        model, some, zero, found.removed, [(last, 7), (0, 2)], [(last, 7)], frequent, strata, by_unit=np.nan_to_num, floor=0.02
    )
    loud, quiet = (decided(one, strata) for one in tries)
    assert loud.harm > 1 and loud.above_all and loud.p < 0.05
    assert quiet.p_units == 1 or quiet.p_units > 0.05
    assert (
        tries[0].by_control is not None and tries[1].by_control is None and "no controls run" in note_of(tries[1], found.removed)
    )
    assert (last, 7) not in tries[0].controls and len(tries[0].controls) == 20
    again = unpacked(packed(tries, "loss"), "loss")
    assert [decided(one, strata) for one in again] == [loud, quiet]


def test_only_rows_with_a_next_token_are_counted(reading: Reading):
    batch = batches(reading, "discovery")[0]
    rows = counted(batch)
    assert not rows[:, 0].any() and not rows[:, -1].any()
    assert (rows.sum(dim=1) == batch.mask.sum(dim=1) - 2).all()
