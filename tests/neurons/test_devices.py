"""Layers on several devices: what is measured of neurons is what it is where all are on one."""

from typing import Any

import numpy as np
import pytest
import torch

import innerworks as iw
from families import VOCAB, build
from innerworks.model.study import Given, Kept
from innerworks.neurons.inputs.limits import limits, sample
from innerworks.neurons.means import NeuronMeans, reference_of
from innerworks.neurons.outputs import Outputs, Vocabulary
from innerworks.neurons.skills.watch import SkillReadings
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading
from innerworks.text.reading import Unit, Window

LAYERS, LENGTH = 4, 40


def reading_of() -> Reading:
    random, nothing = np.random.default_rng(0), (None,) * LENGTH
    units = tuple(
        Unit(id=f"d/{i}", stratum="text", material="text", half=("discovery", "confirmation")[i % 2])  # type: ignore[arg-type]
        for i in range(32)
    )
    tokens = random.integers(2, VOCAB, (len(units), LENGTH)).tolist()
    windows = tuple(Window(unit=i, tokens=tuple(one), words=nothing, kinds=nothing, alike=i) for i, one in enumerate(tokens))
    return Reading(units=units, windows=windows)


def measured(hf: Any, reading: Reading) -> tuple[dict[str, Any], list[Kept]]:
    """Sums of what every neuron does, and the two studies that read them."""
    model, watching = iw.Model(hf, None, certified=False), [NeuronMeans(), SkillReadings()]
    states = observe(model, reading, watching, begin(model, reading, watching)).states
    bounds = limits(model, sample(reading))
    of = reference_of(model, reading.batches("discovery"), over="the discovery half")
    kept = [
        study.measure(Given(model=model, reading=reading, states=states, before=[], depth="quick", seed=0))
        for study in (Outputs(), Vocabulary())
    ]
    sums = {"mean": states["neuron_means"]["sum"], "late": states["skill_readings"]["sum"], "low": bounds.low}
    return {**sums, "stream": bounds.stream, "removed": torch.from_numpy(of.removed)}, kept


@pytest.mark.gpu
def test_a_model_that_lies_on_two_devices_is_measured_as_on_one() -> None:
    from accelerate import dispatch_model

    reading = reading_of()
    sums, studies = measured(build("llama", num_hidden_layers=LAYERS), reading)
    places: dict[str, Any] = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": 0, "lm_head": 0}
    places |= {f"model.layers.{layer}": "cpu" if layer < LAYERS // 2 else 0 for layer in range(LAYERS)}
    there, as_well = measured(dispatch_model(build("llama", num_hidden_layers=LAYERS), device_map=places), reading)
    for name, one in sums.items():
        assert torch.allclose(there[name].double(), one.double(), rtol=1e-3, atol=1e-3), name
    for here, other in zip(studies, as_well, strict=True):
        assert "not measured" not in here.about and set(here.arrays) == set(other.arrays)
