"""What neurons write over the vocabulary: moments against plain ones, planted kinds are found, a decoy is not."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats as scipy_stats

import innerworks as iw
from families import VOCAB
from innerworks.findings import Finding, frame
from innerworks.model.study import Given, Kept, units_of
from innerworks.neurons.means import NeuronMeans, neuron_reference
from innerworks.neurons.outputs import vocabulary_decide
from innerworks.neurons.outputs.firing import FIRES, fired
from innerworks.neurons.outputs.moments import moments, outstanding
from innerworks.neurons.outputs.unembedding import Unembedding
from innerworks.neurons.outputs.vocabulary import Vocabulary, over_documents
from innerworks.scan.engine import begin, observe
from innerworks.show.figures.neuron_outputs import kinds_by_layer
from innerworks.text import Reading
from innerworks.text.openings import documents
from innerworks.text.reading import Unit, Window

WIDTH, LENGTH = 128, 32
RAISES, LOWERS, TURNED, DIVIDES, DECOY = 3, 4, 5, 6, 7  # neurons of the last layer
OWN = {RAISES: 107, LOWERS: 109, TURNED: 111}  # the token that each writes for
TRIGGERS = {RAISES: 20, LOWERS: 21, TURNED: 22, DIVIDES: 23, DECOY: 24}  # the token that each fires on


@pytest.fixture(scope="module")
def reading() -> Reading:
    """Random tokens, among them often those that neurons fire on."""
    torch.set_num_threads(1)
    random, units, windows = np.random.default_rng(4), [], []
    for number in range(64):
        half = ("discovery", "confirmation")[number // 4 % 2]
        units.append(Unit(id=f"d/{number}", stratum=f"stratum {number % 4}", material="text", half=half))  # type: ignore[arg-type]
        tokens = np.where(random.random(LENGTH) < 0.25, random.integers(20, 25, LENGTH), random.integers(2, VOCAB, LENGTH))
        nothing = (None,) * LENGTH
        windows.append(Window(unit=number, tokens=tuple(tokens.tolist()), words=nothing, kinds=nothing, alike=number))
    return Reading(units=tuple(units), windows=tuple(windows))


def handmade(tiny_hf: Any) -> Any:
    """Five neurons of the last layer fire on a token of their own. Three write for one token, one of them with a minus and a
    negative activation; one parts even tokens from odd ones; one writes in a random direction."""
    hf = tiny_hf("llama", num_hidden_layers=2, hidden_size=WIDTH, tie_word_embeddings=False)
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=random))[0]
    constant, parts = basis[0], basis[1]
    with torch.no_grad():
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.mul_(0.02)
            for norm in (block.input_layernorm, block.post_attention_layernorm):
                norm.weight.fill_(1.0)
        hf.model.norm.weight.fill_(1.0)
        codes = torch.randn(VOCAB, WIDTH, generator=random) @ basis[2:].T @ basis[2:]
        hf.model.embed_tokens.weight.copy_(codes + 8.0 * constant)
        columns = torch.randn(VOCAB, WIDTH, generator=random) @ basis[2:].T @ basis[2:]
        even = 1.0 - 2.0 * (torch.arange(VOCAB) % 2)
        hf.lm_head.weight.copy_(columns + 4.0 * even[:, None] * parts)
        last = hf.model.layers[-1].mlp
        writes = {neuron: columns[token] / columns[token].norm() for neuron, token in OWN.items()}
        writes |= {LOWERS: -writes[LOWERS], TURNED: -writes[TURNED], DIVIDES: parts, DECOY: basis[9]}
        for neuron, token in TRIGGERS.items():
            last.down_proj.weight[:, neuron] = writes[neuron]
            last.gate_proj.weight[neuron] = constant
            last.up_proj.weight[neuron] = codes[token] / WIDTH**0.5 * (-1.0 if neuron == TURNED else 1.0)
    return hf


def given_of(hf: Any, tokenizer: Any, reading: Reading, depth: str = "standard") -> Given:
    model, instrument = iw.Model(hf, tokenizer, certified=False), NeuronMeans()
    state = observe(model, reading, [instrument], begin(model, reading, [instrument])).states
    return Given(model=model, reading=reading, states=state, before=[], depth=depth, seed=0)


def rows_of(given: Given) -> tuple[Kept, list[Finding]]:
    study = Vocabulary()
    kept = study.measure(given)
    return kept, study.findings(kept, units_of(given.reading), [])


@pytest.fixture(scope="module")
def planted(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> tuple[Kept, list[Finding]]:
    return rows_of(given_of(handmade(tiny_hf), tiny_tokenizer, reading))


def test_what_is_planted_is_found_and_nothing_else(planted: tuple[Kept, list[Finding]]) -> None:
    found = {(row.behaviour, row.site) for row in planted[1] if row.rung}
    assert found == {
        ("prediction", f"L1N{RAISES}"),
        ("prediction", f"L1N{TURNED}"),  # a minus in the weights and one in the activation
        ("suppression", f"L1N{LOWERS}"),
        ("partition", f"L1N{DIVIDES}"),
    }


def test_a_label_names_the_token(planted: tuple[Kept, list[Finding]], tiny_tokenizer: Any) -> None:
    for row in planted[1]:
        if row.rung and row.behaviour != "partition":
            assert row.index is not None
            assert row.note.split("; ")[1].startswith(repr(tiny_tokenizer.decode([OWN[row.index]])))
            assert "skew -" in row.note if row.index in (LOWERS, TURNED) else "skew +" in row.note


def test_shares_of_layers_are_told_and_drawn(planted: tuple[Kept, list[Finding]]) -> None:
    table = frame(planted[1])
    shares = table.filter(pl.col("measure") == "share_of_layer")
    told = {(row["behaviour"], row["layer"]): row["value"] for row in shares.iter_rows(named=True)}
    assert told["prediction", 1] == pytest.approx(2 / 48) and told["prediction", 0] == 0
    assert told["suppression", 1] == told["partition", 1] == pytest.approx(1 / 48)
    traces: Any = kinds_by_layer(table).data
    drawn = {trace.name: list(trace.y) for trace in traces if trace.showlegend is not False}
    assert drawn["prediction neurons"] == pytest.approx([0, 2 / 48])


def test_a_sample_is_weighed_at_quick_and_said(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> None:
    hf = tiny_hf("llama", num_hidden_layers=2, intermediate_size=100)
    kept, rows = rows_of(given_of(hf, tiny_tokenizer, reading, depth="quick"))
    assert kept.about["weighed"] == "128 of 200 neurons, drawn at random from every layer"
    assert {row.n for row in rows if row.measure == "share_of_layer"} == {64}
    assert not any(row.rung for row in rows)  # nor has an untrained model any


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_moments_are_those_of_all_cosines_at_hand(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    seen = Unembedding.of(model)
    written = seen.written(model, 1)
    columns = torch.cat([columns for _, columns in seen.blocks(unit=True)])
    cosines = (torch.nn.functional.normalize(written, dim=1) @ columns.T).double().numpy()
    found = moments(seen, written)
    assert found["variance"] == pytest.approx(cosines.var(axis=1), rel=1e-3)
    assert found["skew"] == pytest.approx(scipy_stats.skew(cosines, axis=1), abs=2e-3)
    assert found["kurtosis"] == pytest.approx(scipy_stats.kurtosis(cosines, axis=1, fisher=False), rel=2e-3)
    tokens, moved = outstanding(seen, written, np.sign(found["skew"]).tolist(), most=10)
    signed = cosines * np.sign(found["skew"])[:, None]
    assert (np.sort(tokens, axis=1) == np.sort(np.argsort(-signed, axis=1)[:, :10], axis=1)).mean() > 0.99
    logits = (written @ (model.weights.W_U(fold=True) - model.weights.W_U(fold=True).mean(dim=1, keepdim=True))).numpy()
    assert moved == pytest.approx(np.take_along_axis(logits, tokens, axis=1).mean(axis=1), rel=1e-3, abs=1e-5)


def test_firing_is_counted_where_it_happens(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> None:
    given = given_of(tiny_hf("llama", num_hidden_layers=2), tiny_tokenizer, reading)
    reference = neuron_reference(given.model, given.states[NeuronMeans.name], "text")
    batches = documents(reading, "confirmation", tokens=20)[:2]
    neurons = np.array([(0, 5), (1, 7)])
    found = fired(given.model, batches, reference, neurons)
    run = given.model.run(batches[1].tokens, record=["L1.neurons", "norm_scale"])
    mean, spread = float(reference.mean.values["neurons"][1, 7]), float(reference.spread[1, 7])
    for row in range(len(batches[1].tokens)):
        away = run["L1.neurons"][row, 1:, 7].detach().numpy() - mean
        fires, scale = np.abs(away) > FIRES * spread, run["norm_scale"][row, 1:].detach().numpy()
        expected = (away / scale)[fires].mean() if fires.any() else np.nan
        assert found.signed[len(batches[0].tokens) + row, 1] == pytest.approx(expected, rel=1e-3, nan_ok=True)
    assert (np.abs(found.signed) <= found.size + 1e-6)[~np.isnan(found.size)].all()


@pytest.mark.parametrize("family", ["mixtral", "gemma2", "opt-post-norm"])
def test_a_model_that_cannot_be_asked_says_why(tiny_model: Any, family: str, reading: Reading) -> None:
    study, model = Vocabulary(), tiny_model(family)
    assert not study.instruments(model)
    kept = study.measure(Given(model=model, reading=reading, states={}, before=[], depth="quick", seed=0))
    assert not kept.arrays and kept.about["not measured"]
    assert study.findings(kept, units_of(reading), []) == []


def test_what_was_measured_is_read_again_and_not_measured_again(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> None:
    given, saves = given_of(handmade(tiny_hf), tiny_tokenizer, reading), []
    kept = Vocabulary().measure(replace(given, save=saves.append))
    assert "heavy" not in saves[0].arrays and all(len(kept.arrays[kind].shape) == 2 for kind in vocabulary_decide.KINDS)
    for saved in (saves[0], kept):
        again = Vocabulary().measure(replace(given, saved=saved))
        assert set(again.arrays) == set(kept.arrays) and dict(again.about) == dict(kept.about)
        assert all(np.array_equal(again.arrays[name], kept.arrays[name]) for name in kept.arrays)


def test_only_documents_in_which_a_neuron_fires_count() -> None:
    values = np.random.default_rng(0).standard_normal((30, 3))
    values[5:12, 1] = np.nan
    values[:, 2] = np.nan
    found = over_documents(values, ["a"] * 15 + ["b"] * 15)
    assert found[:, 2].tolist() == [30, 23, 0] and found[:2, 3].tolist() == [28, 21] and np.isnan(found[2, 0])
    some = np.delete(values[:, 1], np.arange(5, 12))
    assert found[1, [0, 4]] == pytest.approx([some.mean(), (some > 0).mean()])


def test_without_effect_in_context_weights_label_nothing(planted: tuple[Kept, list[Finding]]) -> None:
    kept, _ = planted
    silent = {name: kept.arrays[name] * [1e-4, 1e-4, 1, 1, 1] for name in vocabulary_decide.KINDS}
    rows = vocabulary_decide.findings(Kept(arrays={**kept.arrays, **silent}, about=kept.about))
    assert len(kept.arrays["heavy"]) >= 3 and not any(row.rung for row in rows)
