"""Edits around Hugging Face's `generate`: with or without a cache, what is written is what edited runs would write."""

from dataclasses import replace

import pytest
import torch
from torch import testing

from families import ALL, OWN_CODE
from innerworks.errors import UnknownSite, UsageError
from innerworks.model import ablate, knockout, patch, scale, steer

REGISTRY = [family for family in ALL if family not in OWN_CODE]
SLIDING = [
    family for family in REGISTRY if family.startswith(("mistral", "qwen2", "gemma2", "gemma3", "phi3", "starcoder2", "mixtral"))
]
NEW = 8
PADDED = torch.ones(2, 9, dtype=torch.bool)
PADDED[0, :3] = False
CLOSE = dict(atol=3e-4, rtol=1e-4)
PUSH = torch.linspace(-2, 2, 32)


def write(model, tokens, mask=None, *, cache=True, new=NEW, **options):
    """Greedy generation: the texts with what was added, and the logits of every added token."""
    mask = torch.ones_like(tokens) if mask is None else mask.long()
    ends = dict(eos_token_id=None, pad_token_id=0, do_sample=False, return_dict_in_generate=True, output_logits=True)
    done = model.hf.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=new, use_cache=cache, **ends, **options)
    return done.sequences, torch.stack(done.logits, dim=1)


def assert_written(model, written, edit, mask=None):
    """Every logit is that of one edited run over the whole text, and what was added is what it finds most likely."""
    (texts, logits), before = written, written[0].shape[1] - written[1].shape[1]
    mask = torch.ones_like(texts, dtype=torch.bool) if mask is None else torch.cat([mask, texts[:, before:] >= 0], dim=1)
    run = model.run(texts, mask=mask, edit=so_far(edit, int(mask.sum(dim=1).max())))
    testing.assert_close(logits, run.logits[:, before - 1 : -1], **CLOSE)
    assert torch.equal(texts[:, before:], logits.argmax(dim=-1))


def so_far(edits, length):
    """Edits without the positions that are not written yet."""
    found = []
    for edit in edits if isinstance(edits, list) else [edits]:
        lists = {name: getattr(edit, name, None) for name in ("positions", "queries", "keys")}
        lists = {name: [one for one in where if one < length] for name, where in lists.items() if isinstance(where, list)}
        found += [replace(edit, **lists)] if all(lists.values()) else []
    return found


def edits_of(model):
    """Edits of all kinds that hold for texts of any length."""
    found = {
        "z": ablate("L1H1", "zero"),
        "resid_post": steer("L1.resid_post", PUSH),
        "a position of the text": steer("L1.resid_post", PUSH, 3.0, positions=[4]),
        "a position that is written": steer("L1.resid_pre", PUSH, 3.0, positions=[8, 10]),
        "a group": [scale("L1.mlp_out", -2.0), ablate("L2H0", "zero", positions="all")],
    }
    if model.adapter.final_norm in dict(model.hf.named_modules()):
        found["norm_scale"] = [scale("norm_scale", 3.0), steer("L2.resid_post", PUSH)]
    if model.lacks("neurons", 1) is None:
        found["neurons"] = scale("L1.neurons", -1.0)
    if model.lacks("expert_neurons", 2) is None:
        found["expert_neurons"] = scale("L2.expert_neurons", -1.0)
    if model.adapter.attention_code == "registry":
        found |= {
            "k": scale("L1.k", -1.0),
            "k of one position": scale("L1H2.k", 5.0, positions=[4]),
            "v": scale("L1.v", -1.0),
            "v of one position": scale("L0.v", -3.0, positions=[5, 9]),
            "pattern": scale("L1H1.pattern", 0.3),
            "knockout": knockout("L1", None, 0),
            "knockout of a later key": knockout("L1", [7, 8, 9, 10, 11], [6, 4]),
            "q_in": steer("L1H2.q_in", PUSH),
        }
    return found


@pytest.mark.parametrize("family", ALL)
def test_what_is_written_is_what_an_edited_run_finds_most_likely(tiny_model, tokens, family):
    model, tokens = tiny_model(family), tokens[:, :9]  # longer than the sliding windows
    plain, unmoved = write(model, tokens), []
    for name, edit in edits_of(model).items():
        with model.edited(edit) as hf:
            assert hf is model.hf
            written = write(model, tokens)
        assert_written(model, written, edit)
        unmoved += [name] if (written[1] - plain[1]).abs().max() < 1e-3 else []
    assert not unmoved
    assert all(torch.equal(*pair) for pair in zip(write(model, tokens), plain, strict=True))


@pytest.mark.parametrize("family", ALL)
def test_generation_without_a_cache_writes_the_same(tiny_model, tokens, family):
    model, tokens = tiny_model(family), tokens[:, :9]
    for edit in edits_of(model).values():
        with model.edited(edit):
            written = write(model, tokens, cache=False, new=3)
        assert_written(model, written, edit)


@pytest.mark.parametrize("family", ALL)
def test_texts_padded_in_front_are_edited_at_their_own_positions(tiny_model, tokens, family):
    model, tokens = tiny_model(family), tokens[:, :9]
    for number, edit in enumerate(edits_of(model).values()):
        with model.edited(edit):
            written = write(model, tokens, PADDED, new=4, cache=number % 3 > 0)
        assert_written(model, written, edit, PADDED)
        assert_written(model, (written[0][:1, 3:], written[1][:1]), edit)  # the padded text alone


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gemma3", "falcon", "qwen3_moe"])
def test_generation_is_a_loop_of_edited_runs(tiny_model, tokens, family):
    model = tiny_model(family)
    for edit in edits_of(model).values():
        texts = tokens[:, :9]
        for _ in range(5):
            logits = model.run(texts, edit=so_far(edit, texts.shape[1]), logits="last").logits
            texts = torch.cat([texts, logits.argmax(dim=-1, keepdim=True)], dim=1)
        with model.edited(edit):
            written, _ = write(model, tokens[:, :9], new=5)
        clear = model.run(texts, edit=so_far(edit, 14)).logits[:, 8:-1].topk(2).values.diff(dim=-1).abs().amin(dim=(1, 2)) > 1e-3
        assert torch.equal(written[clear], texts[clear])


@pytest.mark.parametrize("family", SLIDING)
def test_keys_out_of_sight_of_a_sliding_window_change_nothing_there(tiny_model, tokens, family):
    model, tokens = tiny_model(family), tokens[:, :9]
    sliding = [
        layer for layer, kind in enumerate(getattr(model.config, "layer_types", None) or []) if kind == "sliding_attention"
    ]
    layer = sliding[-1] if sliding else 1
    plain = write(model, tokens)
    seen = model.run(tokens, record=f"L{layer}.pattern")[f"L{layer}.pattern"]
    assert seen[:, :, 8, :3].abs().max() == 0  # six tokens are seen
    for edit in (scale(f"L{layer}.k", 9.0, positions=[1, 2]), scale(f"L{layer}.v", 9.0, positions=[1, 2])):
        with model.edited(edit):
            written = write(model, tokens)
        assert_written(model, written, edit)
    late = knockout(f"L{layer}", [9, 10, 11], [1, 2])  # out of sight of these queries already
    with model.edited(late):
        testing.assert_close(write(model, tokens), plain, **CLOSE)


@pytest.mark.parametrize("family", REGISTRY)
@pytest.mark.parametrize("letter", ["k", "v"])
def test_inputs_of_keys_and_values_are_edited_without_a_cache_only(tiny_model, tokens, family, letter):
    model, tokens = tiny_model(family), tokens[:, :9]
    edit = steer(f"L1H2.{letter}_in", PUSH)
    with pytest.raises(UsageError, match="use_cache=False"), model.edited(edit):
        write(model, tokens)
    with model.edited(edit):
        written = write(model, tokens, cache=False, new=4)
    assert_written(model, written, edit)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gemma3", "falcon", "mixtral"])
def test_nothing_is_left_behind_even_after_an_exception(tiny_model, tokens, family, assert_untouched):
    model = tiny_model(family)
    before = model.run(tokens).logits
    with assert_untouched(model):
        with model.edited(ablate("L1H1", "zero")):
            write(model, tokens)
        with pytest.raises(ZeroDivisionError), model.edited([ablate("L1H1", "zero"), scale("norm_scale", 2.0)]):
            write(model, tokens, new=2)
            raise ZeroDivisionError
        with pytest.raises(UsageError, match=r"\(5,\)"), model.edited(patch("L1H1", torch.zeros(5))):
            write(model, tokens)
        with pytest.raises(UnknownSite, match="4 heads"), model.edited(ablate("L1H7", "zero")):
            pass
    assert torch.equal(model.run(tokens).logits, before)


def test_an_edit_that_never_applied_raises_on_leaving(tiny_model, tokens):
    model = tiny_model("llama")
    with pytest.raises(UnknownSite, match="never fired"), model.edited(ablate("L1H1", "zero")):
        pass
    for edit in (scale("L1H1", 2.0, positions=[40]), scale("L1.k", 2.0, positions=[40]), knockout("L1", [40], 0)):
        with pytest.raises(UsageError, match="no text reached its positions"), model.edited([edit, scale("L2H1", 2.0)]):
            write(model, tokens, new=2)
    for edit in (scale("L1H1", 2.0, positions=[0]), scale("L1H1", 2.0, positions=[13]), knockout("L1", [13], 12)):
        with model.edited(edit):
            write(model, tokens, new=3)


def test_runs_and_further_edits_inside_are_refused(tiny_model, tokens):
    model, other = tiny_model("llama"), tiny_model("gpt2")
    edit = ablate("L1H1", "zero")
    clean = model.run(tokens, keep="resume")
    with model.edited(edit):
        write(model, tokens, new=2)
        with pytest.raises(UsageError, match=r"model\.run inside model\.edited"):
            model.run(tokens)
        with pytest.raises(UsageError, match=r"inside model\.edited"):
            model.run_each([edit], resume=clean)
        with pytest.raises(UsageError, match=r"model\.edited inside model\.edited"), model.edited(edit):
            pass
        with pytest.raises(UsageError, match=r"model\.edited inside model\.edited"), other.edited(edit):
            pass
    model.run(tokens)


def test_several_texts_can_be_written_in_one_block(tiny_model, tokens):
    model, edit = tiny_model("llama"), steer("L1.resid_post", PUSH, positions=[4, 7])
    with model.edited(edit):
        first, second = write(model, tokens[:, :9]), write(model, tokens[:1, 2:7])
        logits = model.hf(input_ids=tokens).logits
    assert_written(model, first, edit)
    assert_written(model, second, edit)
    testing.assert_close(logits, model.run(tokens, edit=edit).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gemma3", "falcon"])
def test_beam_search_scores_are_those_of_edited_runs(tiny_model, tokens, family):
    model, tokens = tiny_model(family), tokens[:, :9]
    edits = [steer("L1.resid_post", PUSH, positions=[5, 10]), ablate("L1H1", "zero")]
    options = dict(num_beams=3, return_dict_in_generate=True, output_scores=True, length_penalty=0.0)
    with model.edited(edits):
        found = model.hf.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=5,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            **options,
        )
    likely = model.run(found.sequences, edit=edits).logits.log_softmax(dim=-1)[:, 8:-1]
    total = likely.gather(2, found.sequences[:, 9:, None]).sum(dim=(1, 2))
    testing.assert_close(total, found.sequences_scores, atol=1e-3, rtol=1e-4)


def test_a_static_cache_is_refused(tiny_model, tokens):
    model = tiny_model("llama")
    with pytest.raises(UsageError, match="dynamic"), model.edited(ablate("L1H1", "zero")):
        write(model, tokens, cache_implementation="static")
