"""Universal neurons: places of two tokenizers, matches and intervals against slow plain computations, known truths, nulls."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import innerworks as iw
from innerworks.claims import LEDGER, judge
from innerworks.errors import BrokenModel, TextError, UnsupportedModel, UsageError
from innerworks.findings import frame
from innerworks.neurons.universal import activations, findings, multiplications, texts_of, universality
from innerworks.neurons.universal.agreement import agreement
from innerworks.neurons.universal.match import matches, rotation
from innerworks.neurons.universal.stretches import cuts, shared_ends
from innerworks.text import Corpus, Document

WIDE = {"n_embd": 64, "n_inner": 192, "n_layer": 2}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """40 documents of 100 random words each."""
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{j}" for j in random.integers(30, 320, 100)) for _ in range(40)]
    return Corpus.of("made", [Document(id=f"d{i}", text=text, domain="ab"[i % 2]) for i, text in enumerate(texts)])


@pytest.fixture(scope="module")
def make(tiny_hf: Callable[..., Any], tiny_tokenizer: Any) -> Callable[..., iw.Model]:
    """`make("gpt2", seed=1)`: a model, its weights drawn anew with this seed."""

    def one(family: str, *, seed: int | None = None, tokenizer: Any = tiny_tokenizer, **options: Any) -> iw.Model:
        hf = tiny_hf(family, **options)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for weight in hf.parameters():
                shuffled = torch.randperm(weight.numel(), generator=generator)
                weight.data = weight.data.flatten()[shuffled].view_as(weight)
        return iw.Model(hf, tokenizer, name=f"{family} {seed}", certified=False)

    return one


@pytest.fixture(scope="module")
def gpt2(make: Callable[..., iw.Model]) -> iw.Model:
    return make("gpt2", **WIDE)


def shuffled(model: iw.Model, seed: int = 0) -> tuple[iw.Model, np.ndarray]:
    """The same model with its neurons in another order: `order[layer, new] = old`."""
    hf, generator = deepcopy(model.hf), torch.Generator().manual_seed(seed)
    orders = [torch.randperm(model.anatomy.neurons, generator=generator) for _ in range(model.anatomy.layers)]
    for block, order in zip(hf.transformer.h, orders, strict=True):
        for weight, axis in ((block.mlp.c_fc.weight, 1), (block.mlp.c_fc.bias, 0), (block.mlp.c_proj.weight, 0)):
            weight.data = weight.data.index_select(axis, order)
    return iw.Model(hf, model.tokenizer, name="shuffled", certified=False), torch.stack(orders).numpy()


def every_place(model: iw.Model, texts: Any, which: int) -> list[np.ndarray]:
    """Activations `[layer, place, neuron]` of each stretch, read one by one."""
    found = []
    for one in texts.stretches:
        side = one.sides[which]
        run = model.run(torch.tensor([side.tokens]), record=model.sites("neurons"))
        found.append(run.stack("neurons")[:, 0, list(side.places)].double().numpy())
    return found


# --- places ------------------------------------------------------------------------------------------------------


def characters() -> Any:
    """A tokenizer of single characters."""
    alphabet = ["<unk>", *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(alphabet)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_tokens_that_end_together_are_places():
    assert shared_ends([(0, 3), (3, 4)], [(0, 3), (3, 4)]) == [(0, 0), (1, 1)]
    assert shared_ends([(0, 3), (3, 7), (7, 9)], [(0, 7), (7, 8), (8, 9)]) == [(1, 0), (2, 2)]
    assert shared_ends([(0, 1), (0, 1), (1, 2)], [(0, 1), (1, 2)]) == [(1, 0), (2, 1)]  # a character of two tokens
    assert shared_ends([(0, 2), (2, 2), (2, 4)], [(0, 2), (2, 4)]) == [(0, 0), (2, 1)]  # a token of nothing


def test_texts_are_cut_at_places_as_late_as_both_windows_allow():
    ends = [(i, 2 * i + 1) for i in range(7)]
    assert list(cuts(ends, (10, 6))) == [((0, 0), ends[:3]), ((3, 6), ends[3:6]), ((6, 12), ends[6:])]
    assert list(cuts(ends, (2, 99))) == [((0, 0), ends[:2]), ((2, 4), ends[2:4]), ((4, 8), ends[4:6]), ((6, 12), ends[6:])]
    assert list(cuts([(0, 0), (9, 9), (10, 10)], (4, 4))) == [((0, 0), [(0, 0)]), ((10, 10), [(10, 10)])]


def test_both_models_have_read_the_same_characters_at_a_place(make, corpus):
    words, letters = make("gpt2"), make("gpt2", tokenizer=characters())
    texts = texts_of((words, letters), corpus, tokens=2000)
    by_unit: dict[str, str] = {d.id: d.text for d in corpus.documents}
    assert {len(one.strata) for one in texts.values()} == {20} and all(one.size == 1000 for one in texts.values())
    for one in texts["confirmation"].stretches:
        read = [
            [
                "".join(model.tokenizer.convert_ids_to_tokens(list(side.tokens[: place + 1]))).replace(" ", "")
                for place in side.places
            ]
            for model, side in zip((words, letters), one.sides, strict=True)
        ]
        assert read[0] == read[1] and any(read[0][-1] in text.replace(" ", "") for text in by_unit.values())
        assert all(min(side.places) > 0 and len(side.tokens) <= 192 for side in one.sides)


def test_an_opening_is_read_and_is_no_place(make, corpus, opening_tokenizer):
    opened = make("gpt2", tokenizer=opening_tokenizer)
    texts = texts_of((make("gpt2"), opened), corpus, tokens=2000)
    for one in texts["discovery"].stretches:
        plain, with_opening = one.sides
        assert with_opening.tokens == (1, *plain.tokens)
        assert with_opening.places == tuple(place + 1 for place in plain.places) and plain.places[0] == 1


@pytest.mark.parametrize(("count", "tokens", "error"), [(40, 100, UsageError), (20, 9000, TextError)])
def test_too_little_text_is_refused(gpt2, corpus, count, tokens, error):
    few = Corpus.of("few", corpus.documents[:count])
    with pytest.raises(error, match="fewer than 8|10 to confirm on"):
        texts_of((gpt2, gpt2), few, tokens=tokens)


# --- against slow plain computations -----------------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [2**30, 4 * 1000 * 48 * 2])
def test_matches_and_agreement_are_those_of_the_full_table(make, corpus, monkeypatch, block_bytes):
    monkeypatch.setattr(activations, "BLOCK_BYTES", block_bytes)
    a, b = make("gpt2"), make("opt", seed=3)
    texts = texts_of((a, b), corpus, tokens=2000)
    found = matches((a, b), texts["discovery"], seed=5)
    first, second = (np.concatenate(every_place(m, texts["discovery"], i), axis=1) for i, m in enumerate((a, b)))
    turns = np.stack([rotation(48, layer, seed=5).numpy() for layer in range(3)])
    for side, others in enumerate((second, second @ turns)):
        with np.errstate(invalid="ignore"):  # some neurons never fire
            table = np.nan_to_num(np.corrcoef(np.concatenate([*first, *others], axis=1).T)[:144, 144:])
        best = table.argmax(axis=1)
        assert np.array_equal(found.layer[side].flatten() * 48 + found.index[side].flatten(), best)
        assert np.allclose(found.correlation[side].flatten(), table.max(axis=1), atol=1e-5)
    settled = agreement((a, b), texts["confirmation"], found, seed=5)
    own, other = (every_place(m, texts["confirmation"], i) for i, m in enumerate((a, b)))
    units = [one.unit for one in texts["confirmation"].stretches]
    for layer, neuron in ((0, 0), (1, 7), (2, 47)):
        columns = [[x[layer, :, neuron] for x in own]]
        for side, turn in enumerate((np.stack([np.eye(48)] * 3), turns)):
            at, index = int(found.layer[side, layer, neuron]), int(found.index[side, layer, neuron])
            columns.append([y[at] @ turn[at][:, index] for y in other])

        def excess(left_out: int = -1, columns: Any = columns) -> tuple[float, float]:
            x, y, z = (np.concatenate([part for part, u in zip(c, units, strict=True) if u != left_out]) for c in columns)
            return np.corrcoef(x, y)[0, 1], np.corrcoef(x, z)[0, 1]

        match, baseline = excess()
        assert np.isclose(settled.correlation[layer, neuron], match, atol=1e-5)
        assert np.isclose(settled.baseline[layer, neuron], baseline, atol=1e-5)
        pseudo = [20 * (match - baseline) - 19 * np.subtract(*excess(unit)) for unit in range(20)]
        assert np.isclose(settled.excess.mean[layer, neuron], np.mean(pseudo), atol=1e-4)
        strata = np.array(texts["confirmation"].strata)
        within = sum(np.var(np.array(pseudo)[strata == s]) * (strata == s).sum() for s in "ab")
        assert np.isclose(settled.excess.se[layer, neuron], np.sqrt(within / 18 / 20), atol=1e-4)


def test_the_rotation_is_orthogonal_and_its_own_for_each_layer_and_seed():
    turn = rotation(32, 1, seed=0)
    assert torch.allclose(turn @ turn.T, torch.eye(32), atol=1e-5) and torch.equal(turn, rotation(32, 1, seed=0))
    others = torch.stack([rotation(32, 2, seed=0), rotation(32, 1, seed=1)])
    assert ((turn - others).abs().amax(dim=(1, 2)) > 0.1).all()


# --- known truths and nulls --------------------------------------------------------------------------------------


def test_a_model_finds_itself_under_a_hidden_order_of_its_neurons(gpt2, corpus):
    other, order = shuffled(gpt2)
    found = universality(gpt2, other, corpus, tokens=4000)
    assert (found.match_layer == np.array([[0], [1]])).all()
    assert np.array_equal(np.take_along_axis(order, found.match_index, axis=1), np.broadcast_to(np.arange(192), (2, 192)))
    assert np.allclose(found.correlation, 1.0, atol=1e-6) and found.baseline.mean() < 0.5
    assert found.share.shown > 0.7 and found.by_layer[1].matched_in == "L1"


def test_only_those_neurons_are_universal_that_were_left_as_they_were(gpt2, corpus):
    other, order = shuffled(gpt2)
    changed, kept = order[1] < 96, np.arange(192) >= 96
    into = other.hf.transformer.h[1].mlp.c_fc.weight
    into.data[:, changed] = into.data[:, changed][torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    found = universality(gpt2, other, corpus, tokens=4000)
    assert found.universal[0].mean() > 0.7 and found.universal[1, kept].mean() > 0.7 and not found.universal[1, ~kept].any()


def test_of_gated_neurons_the_sign_does_not_count(make, corpus):
    model = make("llama")
    hf = deepcopy(model.hf)
    for block in hf.model.layers:
        block.mlp.up_proj.weight.data[::2] *= -1
        block.mlp.down_proj.weight.data[:, ::2] *= -1
    found = universality(model, iw.Model(hf, model.tokenizer, certified=False), corpus, tokens=2000)
    assert (found.match_index == np.arange(48)).all() and np.allclose(found.correlation, 1.0, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_random_models_have_nothing_in_common(make, corpus, family):
    found = universality(make(family), make(family, seed=7), corpus, tokens=4000)
    assert found.share.shown == found.share.not_excluded == 0.0 and not found.universal.any()
    assert abs(found.share.correlation - found.share.baseline) < 0.1
    assert [row.measure for row in findings(found)] == ["universal_share"]


def test_a_neuron_that_never_changes_matches_nothing(gpt2, corpus):
    other, _ = shuffled(gpt2)
    hf = deepcopy(gpt2.hf)
    hf.transformer.h[1].mlp.c_fc.weight.data[:, 3] = 0
    found = universality(iw.Model(hf, gpt2.tokenizer, certified=False), other, corpus, tokens=2000)
    assert found.correlation[1, 3] == found.excess[1, 3] == found.high[1, 3] == 0.0 and not found.universal[1, 3]
    assert np.isfinite(found.excess).all() and np.isfinite(found.p).all()


def test_activations_that_are_not_finite_are_refused(gpt2, corpus):
    hf = deepcopy(gpt2.hf)
    hf.transformer.h[1].mlp.c_fc.bias.data[3] = torch.inf
    with pytest.raises(BrokenModel, match="L1.neurons .* are not finite"):
        universality(gpt2, iw.Model(hf, gpt2.tokenizer, certified=False), corpus, tokens=2000)


def test_models_with_other_tokenizers_are_compared(make, corpus):
    steps: list[tuple[int, int]] = []
    a, b = make("gpt2"), make("gpt_neox", tokenizer=characters())
    found = universality(a, b, corpus, tokens=2000, progress=lambda done, total: steps.append((done, total)))
    assert found.places == {"discovery": 1000, "confirmation": 1000} and steps[-1] == (4000, 4000)
    assert multiplications(a, b, 1000) == 2 * 1000 * 144**2


def test_a_mixture_of_experts_is_refused(make, gpt2, corpus):
    with pytest.raises(UnsupportedModel, match="no plain neurons"):
        universality(gpt2, make("mixtral"), corpus, tokens=2000)


# --- what it comes to --------------------------------------------------------------------------------------------


def test_rows_and_claim(gpt2, corpus):
    other, _ = shuffled(gpt2)
    found = universality(gpt2, other, corpus, tokens=4000)
    share, *rows = findings(found)
    assert (share.effect_low, share.effect_high) == (found.share.shown, found.share.not_excluded) and share.n == 20
    assert {row.site for row in rows} == set(found.frame().filter(found.frame()["universal"])["site"])
    assert all(row.rung == 1 and row.effect_low > 0.5 and row.q is not None and row.q <= 0.05 for row in rows)
    verdict = judge(LEDGER["F9"], frame([share, *rows]))
    assert verdict.verdict == "holds in part" and [one.answer for one in verdict.evidence] == ["yes", "no"]


def test_a_scan_leaves_the_claim_open_and_says_how_to_ask():
    verdict = judge(LEDGER["F9"], frame([]))
    assert verdict.verdict == "not measured" and "innerworks universal A B" in verdict.summary
