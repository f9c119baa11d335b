"""Neurons that shape the whole prediction: numbers against plain computations, planted ones are found, decoys are not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import innerworks as iw
from families import VOCAB
from innerworks.claims import LEDGER, judge
from innerworks.findings import Finding, frame
from innerworks.model.study import Given, Kept, units_of
from innerworks.neurons.means import NeuronMeans, neuron_reference
from innerworks.neurons.outputs import Outputs, Vocabulary, decide
from innerworks.neurons.outputs.controls import Turned, controls_of, remove_turned
from innerworks.neurons.outputs.effects import FROZEN, RESTORED, Frequencies, effects, spread_rows
from innerworks.neurons.outputs.frequencies import direction, unigram
from innerworks.neurons.outputs.screen import screened
from innerworks.neurons.outputs.unembedding import Unembedding
from innerworks.neurons.outputs.weigh import weigh
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading
from innerworks.text.openings import documents
from innerworks.text.reading import Unit, Window

STRATA, PER_STRATUM, LENGTH = 4, 16, 24
ENTROPY, DECOY, FREQUENCY = 5, 6, 7  # neurons of the last layer
SIZE = 3.0  # the norm of what each of the three writes


def zipf() -> np.ndarray:
    share = 1 / (1 + np.random.default_rng(9).permutation(VOCAB))
    return share / share.sum()


@pytest.fixture(scope="module")
def reading() -> Reading:
    """Documents of tokens that differ in nothing but how frequent they are."""
    torch.set_num_threads(1)
    random, units, windows = np.random.default_rng(4), [], []
    for number in range(STRATA * PER_STRATUM):
        half = ("discovery", "confirmation")[number // STRATA % 2]
        units.append(Unit(id=f"d/{number}", stratum=f"stratum {number % STRATA}", material="text", half=half))  # type: ignore[arg-type]
        tokens, nothing = tuple(random.choice(VOCAB, LENGTH, p=zipf()).tolist()), (None,) * LENGTH
        windows.append(Window(unit=number, tokens=tokens, words=nothing, kinds=nothing, alike=number))
    return Reading(units=tuple(units), windows=tuple(windows))


def handmade(tiny_hf: Any, reading: Reading) -> Any:
    """The last layer has one neuron that writes where no logit looks, one that writes along token frequencies, and a decoy that
    writes as much in a random direction. Attention is silent, all other neurons nearly so."""
    hf = tiny_hf("llama", num_hidden_layers=2, tie_word_embeddings=False)
    width, random = hf.config.hidden_size, torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(width, width, generator=random))[0]
    unseen, frequent, elsewhere = basis[:3]
    along = torch.from_numpy(direction(unigram(reading, VOCAB))).float()
    with torch.no_grad():
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.mul_(0.02)
            block.input_layernorm.weight.fill_(1.0)
            block.post_attention_layernorm.weight.fill_(1.0)
        hf.model.norm.weight.fill_(1.0)
        codes = torch.randn(VOCAB, width, generator=random) @ basis[2:].T @ basis[2:]
        hf.model.embed_tokens.weight.copy_(codes + 6.0 * unseen)
        columns = torch.randn(VOCAB, width, generator=random) @ basis[2:].T @ basis[2:]
        hf.lm_head.weight.copy_(columns + 12.0 * along[:, None] * frequent)
        last = hf.model.layers[-1].mlp
        for neuron, writes in ((ENTROPY, unseen), (DECOY, elsewhere), (FREQUENCY, frequent)):
            last.down_proj.weight[:, neuron] = SIZE * writes
            for reads in (last.gate_proj, last.up_proj):  # alike in how much they vary
                reads.weight[neuron] = torch.randn(width, generator=random) @ basis[2:].T @ basis[2:] * 0.25
    return hf


def given_of(hf: Any, tokenizer: Any, reading: Reading, depth: str = "quick") -> Given:
    model, instrument = iw.Model(hf, tokenizer, certified=False), NeuronMeans()
    state = observe(model, reading, [instrument], begin(model, reading, [instrument])).states
    return Given(model=model, reading=reading, states=state, before=[], depth=depth, seed=0)


def rows_of(given: Given) -> tuple[Kept, list[Finding]]:
    study = Outputs()
    kept = study.measure(given)
    return kept, study.findings(kept, units_of(given.reading), [])


def labels(rows: list[Finding]) -> set[tuple[str, str, int]]:
    return {(row.behaviour, row.site, row.rung) for row in rows if row.rung}


# --- known truth --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> tuple[Kept, list[Finding]]:
    return rows_of(given_of(handmade(tiny_hf, reading), tiny_tokenizer, reading, depth="standard"))


def test_the_planted_neurons_are_found_and_the_decoy_is_not(planted: tuple[Kept, list[Finding]]) -> None:
    _, rows = planted
    assert labels(rows) == {("entropy", f"L1N{ENTROPY}", 2), ("token_frequency", f"L1N{FREQUENCY}", 2)}
    way = {row.behaviour: row.effect for row in rows if row.rung and row.measure in ("norm_mediated", "frequency_mediated")}
    assert way["entropy"] == pytest.approx(1.0, abs=1e-3)  # no logit looks there: all of it goes through the scale
    assert way["token_frequency"] > 0.5


def test_their_claims_hold(planted: tuple[Kept, list[Finding]]) -> None:
    assert {name: judge(LEDGER[name], frame(planted[1])).verdict for name in ("F6", "F12")} == {"F6": "holds", "F12": "holds"}


def test_the_ceiling_lies_above_what_was_found(planted: tuple[Kept, list[Finding]]) -> None:
    _, rows = planted
    for kind, measure in (("entropy", "entropy_effect"), ("token_frequency", "unigram_effect")):
        [ceiling] = [row for row in rows if row.behaviour == kind and row.measure == "ceiling"]
        assert ceiling.effect_high > max(row.effect for row in rows if (row.behaviour, row.measure) == (kind, measure))
        assert ceiling.site == "model" and "96 neurons" in ceiling.note


def test_an_untrained_model_has_none(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> None:
    found = 0
    for seed in range(3):
        hf, random = tiny_hf("llama"), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in hf.named_parameters():
                weight.copy_(torch.ones_like(weight) if "norm" in name else 0.2 * torch.randn(weight.shape, generator=random))
        found += bool(labels(rows_of(given_of(hf, tiny_tokenizer, reading))[1]))
    assert found <= 1


def test_small_changes_everywhere_are_bounded(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> None:
    """Neurons that hardly write cannot matter, and the ceilings show it for all of them."""
    hf = handmade(tiny_hf, reading)
    with torch.no_grad():
        for block in hf.model.layers:
            block.mlp.down_proj.weight.mul_(1e-3)
    _, rows = rows_of(given_of(hf, tiny_tokenizer, reading))
    assert not labels(rows)
    ceilings = [row for row in rows if row.measure == "ceiling"]
    assert len(ceilings) == 2 and all(max(row.effect_high, row.mde or 1.0) < 2 * row.floor for row in ceilings)


class Stopped(Exception):
    """Somebody pulled the plug."""


def test_an_interrupted_study_goes_on_where_it_stopped(
    planted: tuple[Kept, list[Finding]], tiny_hf: Any, tiny_tokenizer: Any, reading: Reading
) -> None:
    given = given_of(handmade(tiny_hf, reading), tiny_tokenizer, reading, depth="standard")
    saves: list[Kept] = []
    for stop in (1, 2, 3):  # after the screen, the ablations, the first label's controls

        def save(kept: Kept, stop: int = stop) -> None:
            saves.append(kept)
            done = sum(name.endswith("/controls") for name in kept.arrays)
            if (1 + ("confirmation" in kept.arrays) + done) >= stop:
                raise Stopped

        with pytest.raises(Stopped):
            Outputs().measure(replace(given, saved=saves[-1] if saves else None, save=save))
    kept = Outputs().measure(replace(given, saved=saves[-1]))
    whole, _ = planted
    assert "entropy/neurons" not in saves[0].arrays and sum(name.endswith("/controls") for name in saves[-1].arrays) == 1
    assert set(kept.arrays) == set(whole.arrays) and dict(kept.about) == dict(whole.about)
    assert all(np.array_equal(kept.arrays[name], whole.arrays[name]) for name in whole.arrays)


# --- controls -----------------------------------------------------------------------------------------------------


def test_neurons_that_remove_too_little_are_no_controls() -> None:
    removed = np.ones((3, 40))
    removed[1, 5] = 1.9  # all others remove more than half as much
    some, turned = controls_of((1, 5), {(1, 6), (2, 0)}, removed)
    assert len(some) == 20 and not turned and not {(1, 5), (1, 6), (2, 0)} & set(some)
    removed[1, 5] = 3.0
    assert controls_of((1, 5), (), removed) == ([], [Turned((1, 5), draw) for draw in range(20)])
    removed[2, :16] = 2.0
    some, turned = controls_of((1, 5), (), removed)  # four of twenty are too small
    assert len(some) == 20 and {(2, i) for i in range(16)} < set(some) and not turned
    removed[2, 14:16] = 1.0  # six of twenty are too small: more than a quarter
    some, turned = controls_of((1, 5), (), removed)
    assert sorted(some) == [(2, i) for i in range(14)] and len(turned) == 6
    assert len(controls_of((0, 1), (), np.ones((1, 4)))[1]) == 17  # a model of four neurons


def test_a_turned_control_takes_as_much_from_the_stream_in_another_direction(tiny_hf: Any, tokens: torch.Tensor) -> None:
    model = iw.Model(tiny_hf("llama", num_hidden_layers=2), None, certified=False)
    mean = iw.model.Mean(values={"neurons": torch.full((2, 48), 0.3)}, over="nothing")
    clean = model.run(tokens, record=["L1.neurons", "L1.resid_post"])
    away = (clean["L1.neurons"][:, :, 7] - 0.3)[:, 1:]
    changed = [
        model.run(tokens, record="L1.resid_post", watch=remove_turned(model, mean, Turned((1, 7), draw)))["L1.resid_post"]
        - clean["L1.resid_post"]
        for draw in (0, 1, 0)
    ]
    size = away.abs() * model.weights.W_out(1)[7].norm()
    assert all(torch.allclose(one[:, 1:].norm(dim=-1), size, rtol=1e-3, atol=1e-5) for one in changed)
    assert all(float(one[:, 0].abs().max()) == 0 for one in changed) and torch.equal(changed[0], changed[2])
    own, (one, other) = model.weights.W_out(1)[7], (some[0, 3] for some in changed[:2])
    cosines = [torch.nn.functional.cosine_similarity(a, b, dim=0).abs() for a, b in ((one, own), (other, own), (one, other))]
    assert max(float(cosine) for cosine in cosines) < 0.9


def test_labels_that_were_not_tried_count_when_others_are(planted: tuple[Kept, list[Finding]], reading: Reading) -> None:
    kept, rows = planted
    gone = [name for name in kept.arrays if name.startswith(f"token_frequency/L1N{FREQUENCY}/")]
    fewer = Kept(arrays={name: one for name, one in kept.arrays.items() if name not in gone}, about=kept.about)
    [harm] = [row for row in decide.findings(fewer, units_of(reading)) if row.measure == "harm"]
    [before] = [row for row in rows if row.measure == "harm" and row.behaviour == "entropy"]
    assert len(gone) == 2 and harm.p is not None and (harm.p, harm.q) == (before.p, pytest.approx(2 * harm.p))
    assert "20 of 20 controls are as much in a random direction" in before.note


# --- against plain computations -----------------------------------------------------------------------------------


def frequencies(reading: Reading) -> Frequencies:
    share = unigram(reading, VOCAB)
    return Frequencies(share=torch.from_numpy(share).float(), direction=torch.from_numpy(direction(share)).float())


def test_effects_are_those_of_a_plain_forward_with_the_mean_put_in(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> None:
    given = given_of(tiny_hf("llama", num_hidden_layers=2), tiny_tokenizer, reading)
    hf, batch, of = given.model.hf, documents(reading, "confirmation", tokens=16)[0], frequencies(reading)
    mean = neuron_reference(given.model, given.states[NeuronMeans.name], "text").mean
    found = effects(given.model, [batch], mean, [(1, 3)], of, rows=5, also=(*FROZEN, *RESTORED))

    def put(module: Any, args: Any) -> Any:
        edited = args[0].clone()
        edited[:, 1:, 3] = mean.values["neurons"][1, 3]
        return (edited,)

    def streams() -> torch.Tensor:
        kept: list[torch.Tensor] = []
        hook = hf.model.norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        hf(batch.tokens)
        hook.remove()
        return kept[0]

    with torch.no_grad():
        before = streams()
        hook = hf.model.layers[1].mlp.down_proj.register_forward_pre_hook(put)
        after = streams()
        hook.remove()
        scale = (before.square().mean(dim=-1, keepdim=True) + hf.config.rms_norm_eps).sqrt()
        own, changed = hf.lm_head(hf.model.norm(before)), hf.lm_head(hf.model.norm(after))
        frozen = hf.lm_head(hf.model.norm.weight * after / scale)
        restored = changed - ((changed - own) @ of.direction)[..., None] * of.direction

    where = spread_rows(batch, 5)
    assert where.sum(dim=1).tolist() == [5] * len(batch.tokens) and not where[:, 0].any() and not where[:, -1].any()

    def change(name: str, logits: torch.Tensor) -> np.ndarray:
        def read(logits: torch.Tensor) -> torch.Tensor:
            p = logits.softmax(dim=-1)
            if name == "entropy":
                return torch.distributions.Categorical(logits=logits).entropy()
            if name == "kl":
                return (of.share * (of.share.log() - p.log())).sum(dim=-1)
            return -p.log().gather(-1, batch.tokens.roll(-1, dims=1)[..., None])[..., 0]

        moved = (read(logits) - read(own)).abs()
        return np.array([float(moved[row][where[row]].mean()) for row in range(len(where))])

    for name, quantity, logits in (
        ("entropy", "entropy", changed),
        ("loss", "loss", changed),
        ("kl", "kl", changed),
        ("entropy_frozen", "entropy", frozen),
        ("loss_frozen", "loss", frozen),
        ("loss_restored", "loss", restored),
    ):
        assert found[name][0] == pytest.approx(change(quantity, logits), rel=2e-3, abs=2e-6), name


def test_estimates_come_close_to_small_ablations(tiny_hf: Any, tiny_tokenizer: Any, reading: Reading) -> None:
    hf = handmade(tiny_hf, reading)
    with torch.no_grad():
        hf.model.layers[-1].mlp.down_proj.weight.mul_(0.05)
    given, of = given_of(hf, tiny_tokenizer, reading), frequencies(reading)
    mean = neuron_reference(given.model, given.states[NeuronMeans.name], "text").mean
    batches = documents(reading, "discovery", tokens=16)[:2]
    guess = screened(given.model, batches, mean, [0, 1], of, rows=6)
    neurons = [(1, ENTROPY), (1, DECOY), (1, FREQUENCY)]
    exact = effects(given.model, batches, mean, neurons, of, rows=6, also=FROZEN)
    for name in ("entropy", "entropy_frozen", "kl"):
        estimated = guess[name][:, 1, [neuron for _, neuron in neurons]].T
        assert estimated == pytest.approx(exact[name], rel=0.25, abs=1e-4), name
    assert guess["entropy_frozen"][:, 1, ENTROPY].max() < 1e-5 < guess["entropy"][:, 1, ENTROPY].min()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_weights_are_weighed_as_one_would_with_all_logits_at_hand(tiny_model: Any, family: str) -> None:
    model, random = tiny_model(family), np.random.default_rng(0)
    toward = direction(random.dirichlet(np.ones(VOCAB)))
    found, last = weigh(model, [1, 2], toward), model.anatomy.layers - 1
    written = model.weights.W_out(last)
    logits = model.weights.W_U(fold=True)
    logits = logits - logits.mean(dim=1, keepdim=True)
    if family == "gpt2":
        written = written - written.mean(dim=1, keepdim=True)
    moved = (written @ logits).double().numpy()
    cosine = np.abs(moved @ toward) / np.linalg.norm(moved, axis=1)
    assert found["cosine"][1] == pytest.approx(cosine, rel=1e-3, abs=1e-5)
    lengths = torch.nn.functional.normalize(written, dim=1) @ torch.nn.functional.normalize(logits, dim=0)
    assert found["logit_variance"][1] == pytest.approx(lengths.var(dim=1, correction=0).numpy(), rel=1e-3)
    left, sizes, _ = torch.linalg.svd(logits, full_matrices=False)
    smallest = left[:, -2] if family == "gpt2" else left[:, -1]  # in GPT-2 the very last is what LayerNorm takes away
    hidden = (written @ smallest).abs() / written.norm(dim=1)
    assert found["hidden"][1] == pytest.approx(hidden.numpy(), rel=1e-2, abs=1e-4)
    assert len(found["hidden_null"]) == len(found["cosine_null"]) == 40 * 2 * model.anatomy.neurons
    assert Unembedding.of(model).tokens == VOCAB


def test_frequencies_leave_room_for_what_was_never_seen(reading: Reading) -> None:
    share = unigram(reading, VOCAB)
    assert share.sum() == pytest.approx(1.0) and share.min() > 0
    common = np.argsort(-zipf())[:5]
    assert share[common] == pytest.approx(zipf()[common], rel=0.3)
    assert np.linalg.norm(direction(share)) == pytest.approx(1.0) and abs(direction(share).sum()) < 1e-9


@pytest.mark.parametrize("family", ["mixtral", "opt-post-norm"])
def test_a_model_that_cannot_be_asked_says_why(tiny_model: Any, family: str, reading: Reading) -> None:
    study, model = Outputs(), tiny_model(family)
    assert not study.instruments(model)
    kept = study.measure(Given(model=model, reading=reading, states={}, before=[], depth="quick", seed=0))
    assert not kept.arrays and kept.about["not measured"]
    assert study.findings(kept, units_of(reading), []) == []


def test_experts_in_an_earlier_layer_are_seen_though_the_last_ones_are_plain(tiny_hf: Any, reading: Reading) -> None:
    model = iw.Model(tiny_hf("qwen3_moe", num_hidden_layers=3, mlp_only_layers=[1, 2]), None, certified=False)
    assert model.lacks("neurons", 0) and not model.lacks("neurons", 1) and not model.lacks("neurons", 2)
    for study in (Outputs(), Vocabulary()):
        given = Given(model=model, reading=reading, states={}, before=[], depth="standard", seed=0)
        assert not study.instruments(model) and "not every layer" in study.measure(given).about["not measured"]


def test_quantised_weights_are_not_weighed(tiny_hf: Any, reading: Reading) -> None:
    hf = tiny_hf("llama")
    hf.config.quantization_config = {"quant_method": "bitsandbytes"}
    model = iw.Model(hf, None, certified=False)
    for study in (Outputs(), Vocabulary()):
        given = Given(model=model, reading=reading, states={}, before=[], depth="standard", seed=0)
        assert not study.instruments(model) and "quantised (bitsandbytes)" in study.measure(given).about["not measured"]


def test_a_model_with_capped_logits_is_measured_before_the_cap(tiny_model: Any, reading: Reading) -> None:
    model, instrument = tiny_model("gemma2"), NeuronMeans()
    state = observe(model, reading, [instrument], begin(model, reading, [instrument])).states
    kept, rows = rows_of(Given(model=model, reading=reading, states=state, before=[], depth="quick", seed=0))
    assert "capped at 3.0" in kept.about["before the cap"]
    assert all(np.isfinite([row.effect, row.effect_low, row.effect_high]).all() for row in rows)
