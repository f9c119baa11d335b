"""What the statistics of neurons promise, on untrained models: nothing is there."""

from typing import Any

import pytest

from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.model.study import Given, units_of
from innerworks.neurons.inputs import NeuronInputs
from innerworks.scan.engine import begin, observe
from innerworks.text import Corpus, read
from twins import twin


def decided(model: Model, corpus: Corpus, seed: int) -> list[Finding]:
    a = model.anatomy
    reading = read(corpus, model.tokenizer, vocab=a.vocab, max_positions=a.max_positions, seed=seed)
    study = NeuronInputs()
    instruments = study.instruments(model)
    states = observe(model, reading, instruments, begin(model, reading, instruments)).states
    kept = study.measure(Given(model=model, reading=reading, states=states, before=[], depth="quick", seed=seed))
    return study.findings(kept, units_of(reading), [])


def labelled(tokenizer: Any, corpus: Corpus, seeds: range) -> dict[int, list[tuple[str, str, float]]]:
    """Labels of untrained models, by seed."""
    found = {seed: decided(twin(tokenizer, seed), corpus, seed) for seed in seeds}
    labels = {seed: [(row.behaviour, row.site, row.effect) for row in rows if row.rung] for seed, rows in found.items()}
    return {seed: some for seed, some in labels.items() if some}


def test_an_untrained_model_has_no_labels(tokenizer: Any) -> None:
    assert labelled(tokenizer, Corpus.open("builtin").sample(8), range(2)) == {}


@pytest.mark.slow
def test_at_most_three_of_twenty_untrained_models_have_any_label(tokenizer: Any) -> None:
    found = labelled(tokenizer, Corpus.open("builtin"), range(20))
    assert len(found) <= 3, found
