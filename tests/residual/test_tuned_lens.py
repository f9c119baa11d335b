"""A tuned lens finds the map that was planted, leaves alone what needs none, and is never worse than the logit lens."""

from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import testing

import families
import innerworks as iw
from innerworks import residual
from innerworks.errors import AtlasError, TextError, UnknownSite, UsageError
from innerworks.model import readout
from innerworks.model.digest import weights_digest
from innerworks.model.readout import lens as logit_lens
from innerworks.residual import divergence, tuning
from innerworks.text import Document


def words(documents: int = 48, length: int = 40) -> iw.Corpus:
    """Texts of random words in two domains."""
    generator = torch.Generator().manual_seed(0)
    texts = [
        " ".join(f"w{30 + i}" for i in torch.randint(280, (length,), generator=generator).tolist()) for _ in range(documents)
    ]
    return iw.Corpus(name="words", documents=tuple(Document(id=str(i), text=t, domain="ab"[i % 2]) for i, t in enumerate(texts)))


CORPUS = words()


def silent(tiny_hf: Any, tiny_tokenizer: Any, *, bias: float) -> iw.Model:
    """A GPT-2 whose layers after the first write nothing but, in the last one, a constant."""
    hf = tiny_hf("gpt2")
    with torch.no_grad():
        for block in hf.transformer.h[1:]:
            for part in (block.attn.c_proj, block.mlp.c_proj):
                part.weight.zero_()
                part.bias.zero_()
        hf.transformer.h[2].mlp.c_proj.bias += bias * torch.randn(32, generator=torch.Generator().manual_seed(1))
    return iw.Model(hf, tiny_tokenizer, name="silent")


@pytest.fixture(scope="module")
def planted(tiny_hf: Any, tiny_tokenizer: Any) -> tuple[iw.Model, residual.TunedLens]:
    model = silent(tiny_hf, tiny_tokenizer, bias=2.0)
    return model, residual.tune(model, CORPUS, positions=200 * tuning.AT_ONCE)


def test_a_planted_shift_is_found(planted):
    model, lens = planted
    first, second, last = lens.held_out
    assert first.tuned and second.tuned and not last.tuned
    for one in (first, second):
        assert one.logit_lens > 0.3 and one.tuned_lens < 0.1 * one.logit_lens and one.gain_low > 0
        assert one.gain == pytest.approx(one.logit_lens - one.tuned_lens, abs=1e-6)
    assert last.logit_lens == pytest.approx(0, abs=1e-5) == last.tuned_lens
    assert lens.trained_on["documents"] == {"training": 24, "validation": 12, "test": 12} and first.n == 12


def test_where_nothing_is_to_be_learned_the_identity_stays_and_training_stops(tiny_hf, tiny_tokenizer):
    model = silent(tiny_hf, tiny_tokenizer, bias=0.0)
    lens = residual.tune(model, CORPUS, positions=200 * tuning.AT_ONCE)
    assert not any(one.tuned for one in lens.held_out)
    assert not lens.change.any() and not lens.shift.any()
    assert all(one.tuned_lens == one.logit_lens for one in lens.held_out)
    assert lens.trained_on["documents"]["training"] == 24  # 48 steps, each on one of them
    assert lens.trained_on["stopped_early"] and lens.trained_on["steps"] == tuning.PATIENCE * tuning.EVERY
    assert lens.trained_on["positions"] == lens.trained_on["steps"] * tuning.AT_ONCE


@pytest.mark.parametrize("family", families.ALL)
def test_it_is_never_worse_than_the_logit_lens(tiny_model, family):
    model = tiny_model(family)
    lens = residual.tune(model, CORPUS, positions=32 * tuning.AT_ONCE)
    assert len(lens.held_out) == model.anatomy.layers and not lens.held_out[-1].tuned
    assert any(one.tuned for one in lens.held_out)
    for layer, one in enumerate(lens.held_out):
        assert one.gain > 0 if one.tuned else one.tuned_lens == one.logit_lens and not lens.change[layer].any()


def test_the_held_out_divergence_is_that_of_the_lens(planted):
    model, lens = planted
    tokens = torch.randint(30, 310, (4, 30), generator=torch.Generator().manual_seed(2))
    final = model.run(tokens).logits.log_softmax(dim=-1)[:, 1:]
    for translate, name in ((None, "logit_lens"), (lens, "tuned_lens")):
        said = readout.logit_lens(model, tokens, translate=translate).log_softmax(dim=-1)[:, :, 1:]
        kl = (final.exp() * (final - said)).sum(dim=-1).mean(dim=(1, 2)).detach()
        held_out = torch.tensor([getattr(one, name) for one in lens.held_out])
        testing.assert_close(kl, held_out, rtol=0.2, atol=0.01)  # other text


def test_the_lens_of_a_prompt_reads_with_it(planted):
    model, lens = planted
    found = residual.lens(model, "the cat sat and saw", tuned=lens)
    logits = readout.logit_lens(model, "the cat sat and saw", translate=lens)
    assert found.lens == "tuned lens" and [p.guesses[0].id for p in found.places[0]] == logits[0, 0].argmax(-1).tolist()
    assert (
        "as in the logit lens: L2." in found.notes[1] and f"{lens.trained_on['positions']:,} positions of words" in found.notes[1]
    )
    with pytest.raises(UsageError, match="trained on resid_post: it cannot read resid_mid"):
        residual.lens(model, "the cat", kind="resid_mid", tuned=lens)


@pytest.mark.parametrize("kind", ["resid_pre", "resid_mid"])
def test_other_streams_have_maps_of_their_own_at_every_layer(tiny_model, kind):
    lens = residual.tune(tiny_model("llama"), CORPUS, kind=kind, positions=16 * tuning.AT_ONCE)
    assert [one.site for one in lens.held_out] == [f"L{layer}.{kind}" for layer in range(3)] and lens.kind == kind
    assert all(one.logit_lens > 0 for one in lens.held_out) and lens.held_out[0].tuned


def test_a_file_comes_back_as_it_was(planted, tmp_path):
    model, lens = planted
    path = lens.save(tmp_path / "a.lens")
    again = residual.TunedLens.open(path, model)
    assert torch.equal(again.change, lens.change) and torch.equal(again.shift, lens.shift) and again.change.dtype == torch.float32
    assert replace(again, change=lens.change, shift=lens.shift) == lens
    assert [file.name for file in tmp_path.iterdir()] == ["a.lens"]


def test_what_is_no_lens_of_this_model_is_refused(planted, tiny_model, tmp_path):
    model, lens = planted
    path = lens.save(tmp_path / "a.lens")
    with pytest.raises(UsageError, match="trained on silent with other weights than those of tiny-gpt2"):
        residual.TunedLens.open(path, tiny_model("gpt2"))
    with pytest.raises(AtlasError, match="There is no file .*none.lens. Train a lens with"):
        residual.TunedLens.open(tmp_path / "none.lens", model)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AtlasError, match="is no tuned lens, or damaged"):
        residual.TunedLens.open(path, model)
    safetensors.torch.save_file({"change": lens.change}, path)
    with pytest.raises(AtlasError, match="is no tuned lens, or damaged"):
        residual.TunedLens.open(path, model)
    safetensors.torch.save_file({"change": lens.change}, path, metadata={"innerworks": '{"schema": 9}'})
    with pytest.raises(AtlasError):
        residual.TunedLens.open(path, model)
    with pytest.raises(AtlasError, match="cannot be written"):
        lens.save(tmp_path / "none" / "a.lens")


def test_the_same_seed_gives_the_same_lens_and_the_model_is_left_as_it_was(tiny_model):
    model = tiny_model("llama")
    before = weights_digest(model.hf)
    lenses = [residual.tune(model, CORPUS, positions=96, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(lenses[0].change, lenses[1].change) and lenses[0].held_out == lenses[1].held_out
    assert not torch.equal(lenses[0].change, lenses[2].change)
    assert weights_digest(model.hf) == before and all(weight.grad is None for weight in model.hf.parameters())


def test_logits_take_bounded_memory(tiny_model, monkeypatch):
    model, rows, unembed = tiny_model("gpt2"), [], type(tiny_model("gpt2")).readout
    generator = torch.Generator().manual_seed(0)
    parts = tuning.parts_of(model, CORPUS, generator, seed=0)
    seen = divergence.together([divergence.look(model, w, "resid_post", rows=9, generator=generator) for w in parts.test])
    whole = divergence.divergences(model, seen, lambda layer, stream: stream, range(3))
    monkeypatch.setattr(divergence, "LOGITS_AT_ONCE", 4 * 7 * model.anatomy.vocab)
    monkeypatch.setattr(type(model), "readout", lambda *a, **b: rows.append(len(a[1])) or unembed(*a, **b))
    found = divergence.divergences(model, seen, lambda layer, stream: stream, range(3))
    assert max(rows) == 7 and found.shape == (3, 9 * len(parts.test))
    testing.assert_close(found, whole)
    assert logit_lens.LOGITS_AT_ONCE > 0


def test_what_is_kept_does_not_grow_with_the_corpus_and_no_first_position_is_used(tiny_model, monkeypatch):
    model, asked = tiny_model("llama"), []
    whole = tuning.look
    monkeypatch.setattr(tuning, "look", lambda *a, **b: asked.append(whole(*a, **b)) or asked[-1])
    monkeypatch.setattr(tuning, "MEASURED", 10)
    monkeypatch.setattr(tuning, "FITTED", 20)
    fits, solve = [], tuning.solved
    monkeypatch.setattr(tuning, "solved", lambda moments: fits.append(moments) or solve(moments))
    residual.tune(model, words(documents=96), positions=64)
    assert len(asked) == 10 + 2 + 10  # validation, two steps, test
    [fit] = fits
    assert fit.count == tuning.FITTED * 39  # of each window all positions but the first
    run = model.run(
        torch.tensor([tuning.parts_of(model, words(96), torch.Generator(), seed=0).training[0].tokens]), record="L*.resid_post"
    )
    firsts = run["L0.resid_post"][0, 0]
    assert not any((one.streams[0] == firsts).all(dim=-1).any() for one in asked)


def test_the_first_step_is_the_ridge_regression_of_what_the_stream_lacks():
    generator = torch.Generator().manual_seed(0)
    streams = torch.randn(2, 4000, 6, generator=generator, dtype=torch.double) * torch.tensor([100.0, 1, 1, 2, 3, 0.1]) + 5
    truth, constant = torch.randn(6, 6, generator=generator, dtype=torch.double) / 10, torch.ones(6, dtype=torch.double)
    last = streams[1] / streams[1].square().mean().sqrt() + (streams[1] - 5) / streams[1].std(dim=0) @ truth.T + constant
    moments = tuning.Moments()
    for rows in torch.arange(4000).split(700):
        moments.add(streams[:, rows], last[rows])
    fit = tuning.solved(moments)
    assert moments.count == 4000
    testing.assert_close(fit.change[1], truth.float(), atol=0.02, rtol=0)
    testing.assert_close(fit.shift[1], constant.float(), atol=0.02, rtol=0)
    testing.assert_close(fit.spread[1], streams[1].std(dim=0).float(), rtol=1e-3, atol=0)


def test_documents_of_one_part_are_in_no_other(tiny_model):
    parts = tuning.parts_of(tiny_model("gpt2"), CORPUS, torch.Generator(), seed=0)
    units = [{window.unit for window in some} for some in (parts.training, parts.validation, parts.test)]
    assert sum(map(len, units)) == len(set.union(*units)) == 48
    for some in units:  # every domain is in every part
        assert {parts.strata[unit] for unit in some} == {"a", "b"}


def test_the_rate_rises_and_falls():
    rates = [tuning.rate(number, 60) for number in range(1, 61)]
    assert max(rates) == rates[5] == 1.0 and rates[0] == pytest.approx(1 / 6)
    assert rates[5:] == sorted(rates[5:], reverse=True) and 0 < rates[-1] < 0.02
    assert tuning.rate(1, 1) == 1.0


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"positions": 31}, UsageError, "positions=31: at least 32"),
        ({"kind": "mlp_out"}, UsageError, "the lens reads streams"),
        ({"corpus": words(documents=20)}, TextError, "20 documents"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_model, options, error, says):
    with pytest.raises(error, match=says):
        residual.tune(tiny_model("gpt2"), **{"corpus": CORPUS, **options})
    with pytest.raises(UnknownSite, match="no resid_mid"):
        residual.tune(tiny_model("gpt_neox"), CORPUS, kind="resid_mid")
