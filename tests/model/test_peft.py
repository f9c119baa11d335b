"""PEFT adapters: on, off and merged they compute what peft computes, and their weights are never mistaken for the base's."""

import json
import sys
import warnings

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

import innerworks as iw
from innerworks.errors import BrokenModel, InnerworksError, ModelError, UnsupportedModel, UsageError
from innerworks.model.peft import adapter_off, attach, effective_weight, find_adapter, plain_module, unwrap

TARGETS = {"llama": ["q_proj", "v_proj", "gate_proj"], "gpt2": ["c_attn", "c_fc"]}
FAMILIES = list(TARGETS)


def lora(family, **changes):
    options = dict(r=4, lora_alpha=12, target_modules=TARGETS[family], fan_in_fan_out=family == "gpt2", lora_dropout=0.1)
    return LoraConfig(**{**options, **changes})


def adapted(hf, config):
    """A PeftModel with random adapter weights: B too, which peft starts at zero."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        wrapped = get_peft_model(hf, config)
        for name, weight in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name or "ia3" in name:
                weight += 0.3 * torch.randn_like(weight)
    return wrapped.eval()


def logits(hf, tokens):
    with torch.no_grad():
        return hf(input_ids=tokens, use_cache=False).logits


@pytest.fixture(scope="module")
def base(tiny_hf, tiny_tokenizer, tmp_path_factory):
    """`base("llama")`: a folder with the base."""

    def save(family):
        folder = tmp_path_factory.getbasetemp() / f"base-{family}"
        if not folder.exists():
            tiny_hf(family).save_pretrained(folder)
            tiny_tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def saved(tiny_hf, base, tmp_path):
    """`saved("llama", r=8)`: a fresh folder with an adapter that names its base, and the PeftModel it was saved from."""

    def save(family, config=None, **changes):
        wrapped = adapted(tiny_hf(family), config or lora(family, **changes))
        folder = tmp_path / f"adapter-{family}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped.save_pretrained(folder)
        configure(folder, base_model_name_or_path=str(base(family)))
        return folder, wrapped

    return save


def configure(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- on, off, merged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_is_loaded_on_its_base_and_computes_what_peft_computes(saved, tokens, family):
    folder, wrapped = saved(family)
    model = iw.load(folder)
    assert torch.equal(model.run(tokens).logits, logits(wrapped, tokens))
    assert model.name == f"adapter-{family}" and model.certificate is not None
    assert type(model.hf).__name__ == type(wrapped.get_base_model()).__name__
    assert model.run("the cat sat").tokens.tolist() == [[2, 14, 17]]


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(("family", "targets"), [("llama", "all-linear"), ("gpt2", ["c_attn", "c_proj", "c_fc"])])
def test_an_adapter_on_every_projection_is_certified_on_and_off(saved, family, targets, dora):
    """The certificate rebuilds what heads and neurons write from the weights: those of the base would not do."""
    model = iw.load(saved(family, target_modules=targets, use_dora=dora)[0])
    assert all(check.passed for check in model.certificate.checks)
    with adapter_off(model):
        assert iw.Model(model.hf, None).certificate is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_off_it_is_the_base_bit_for_bit_and_afterwards_it_is_on_again(saved, tiny_model, tokens, family):
    folder, wrapped = saved(family)
    model = iw.load(folder)
    trainable = {name for name, weight in model.hf.named_parameters() if weight.requires_grad}
    with adapter_off(model):
        assert torch.equal(model.run(tokens).logits, tiny_model(family).run(tokens).logits)
        with adapter_off(model.hf):  # the bare model will do
            pass
        assert torch.equal(model.run(tokens).logits, tiny_model(family).run(tokens).logits)
    assert torch.equal(model.run(tokens).logits, logits(wrapped, tokens))
    assert {name for name, weight in model.hf.named_parameters() if weight.requires_grad} == trainable


def test_an_exception_inside_leaves_it_on(saved, tokens):
    folder, wrapped = saved("llama")
    model = iw.load(folder)
    with pytest.raises(ZeroDivisionError), adapter_off(model):
        raise ZeroDivisionError
    assert torch.equal(model.run(tokens).logits, logits(wrapped, tokens))


def test_two_threads_switch_it_one_after_the_other(saved, tiny_model, tokens):
    from concurrent.futures import ThreadPoolExecutor

    folder, wrapped = saved("llama")
    model = iw.load(folder)

    def off():
        with adapter_off(model):
            return model.run(tokens).logits

    with ThreadPoolExecutor(1) as pool:
        with adapter_off(model):
            waiting = pool.submit(off)
            model.run(tokens)
            assert not waiting.done()
        assert torch.equal(waiting.result(timeout=30), tiny_model("llama").run(tokens).logits)
    assert torch.equal(model.run(tokens).logits, logits(wrapped, tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_it_is_a_plain_model_with_the_same_logits(saved, tokens, family):
    folder, wrapped = saved(family)
    model = iw.load(folder, merge=True)
    torch.testing.assert_close(model.run(tokens).logits, logits(wrapped, tokens), atol=1e-4, rtol=0)
    assert not any("lora" in name for name, _ in model.hf.named_modules())
    with pytest.raises(UsageError, match="has no adapter to switch off"), adapter_off(model):
        pass


def test_a_merged_model_can_be_saved_and_opened_as_a_folder(saved, tiny_tokenizer, tokens, tmp_path):
    model = iw.load(saved("llama")[0], merge=True)
    model.hf.save_pretrained(tmp_path / "merged")
    again = iw.load(tmp_path / "merged", tokenizer=tiny_tokenizer)
    assert torch.equal(again.run(tokens).logits, model.run(tokens).logits)


def test_a_precision_is_kept_by_base_and_adapter(saved):
    model = iw.load(saved("llama")[0], dtype="bfloat16")
    assert {weight.dtype for weight in model.hf.parameters()} == {torch.bfloat16}


def test_a_copy_of_a_module_that_was_trained_whole_is_switched_too(saved, tiny_model, tokens):
    folder, wrapped = saved("llama", modules_to_save=["norm"])
    model = iw.load(folder)
    assert torch.equal(model.run(tokens).logits, logits(wrapped, tokens))
    norm, plain = model.hf.get_submodule("model.norm"), tiny_model("llama").hf.get_submodule("model.norm").weight
    assert not torch.equal(effective_weight(norm), plain)
    with adapter_off(model):
        assert torch.equal(effective_weight(norm), plain)
        assert torch.equal(model.run(tokens).logits, tiny_model("llama").run(tokens).logits)


def test_a_tokenizer_saved_with_the_adapter_comes_before_the_bases(saved, opening_tokenizer, tiny_tokenizer):
    folder, _ = saved("llama")
    assert iw.load(folder).run("the cat").tokens.tolist() == [[2, 14]]
    opening_tokenizer.save_pretrained(folder)
    assert iw.load(folder).run("the cat").tokens.tolist() == [[1, 2, 14]]
    assert iw.load(folder, tokenizer=tiny_tokenizer).run("the cat").tokens.tolist() == [[2, 14]]


def test_nothing_is_printed_and_steps_are_told(saved, base, capfd):
    steps = []
    folder, _ = saved("gpt2")
    configure(folder, fan_in_fan_out=False)  # peft would warn, and put it right
    capfd.readouterr()
    iw.load(folder, progress=steps.append)
    assert steps == [f"Loading {base('gpt2')}", f"Putting the adapter {folder} on it"]
    assert capfd.readouterr() == ("", "")


# --- weights -------------------------------------------------------------------------------------------------------


def applied(module, inputs):
    """The matrix that a module multiplies with, measured: `[in, out]`, without its bias."""
    with torch.no_grad():
        return module(torch.eye(inputs)) - module(torch.zeros(1, inputs))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_effective_weight_is_the_one_that_is_applied(saved, family, dora):
    wrapped = saved(family, use_dora=dora)[1]
    hf = wrapped.get_base_model()
    path = "model.layers.1.self_attn.q_proj" if family == "llama" else "transformer.h.1.attn.c_attn"
    module = hf.get_submodule(path)
    own = (lambda matrix: matrix.T) if family == "llama" else (lambda matrix: matrix)

    def check(*, is_base):
        torch.testing.assert_close(effective_weight(module), own(applied(module, 32)), atol=2e-6, rtol=1e-5)
        assert torch.equal(effective_weight(module), base_weight) == is_base

    base_weight = plain_module(module).weight.detach().clone()
    check(is_base=False)
    with adapter_off(hf):
        check(is_base=True)
    check(is_base=False)
    wrapped.merge_adapter()
    check(is_base=False)
    wrapped.unmerge_adapter()
    check(is_base=False)


def test_two_active_adapters_add_up_and_an_inactive_one_adds_nothing(saved):
    wrapped = saved("llama")[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wrapped.add_adapter("second", lora("llama", r=2, init_lora_weights=False))
    wrapped.eval()
    module = wrapped.get_base_model().get_submodule("model.layers.0.self_attn.q_proj")
    first, plain = effective_weight(module), plain_module(module).weight
    wrapped.set_adapter("second")
    second = effective_weight(module)
    wrapped.base_model.set_adapter(["default", "second"])
    torch.testing.assert_close(effective_weight(module) - plain, first + second - 2 * plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(effective_weight(module), applied(module, 32).T, atol=2e-6, rtol=0)


def test_a_lora_of_the_embedding_has_an_effective_weight(tiny_hf):
    wrapped = adapted(tiny_hf("gpt2"), lora("gpt2", target_modules=["wte"]))
    module = wrapped.get_base_model().get_submodule("transformer.wte")
    with torch.no_grad():
        torch.testing.assert_close(effective_weight(module), module(torch.arange(320)), atol=1e-6, rtol=0)


def test_an_ordinary_module_gives_its_own_weight(tiny_hf):
    for hf, path in ((tiny_hf("llama"), "model.layers.0.mlp.down_proj"), (tiny_hf("gpt2"), "transformer.h.0.mlp.c_proj")):
        module = hf.get_submodule(path)
        assert effective_weight(module) is module.weight and plain_module(module) is module


def test_off_and_merged_at_once_has_no_weight_to_give(saved):
    wrapped = saved("llama")[1]
    module = wrapped.get_base_model().get_submodule("model.layers.0.self_attn.q_proj")
    wrapped.merge_adapter()
    with pytest.raises(UsageError, match="unmerge_adapter"), adapter_off(wrapped.get_base_model()):
        pass
    wrapped.base_model.disable_adapter_layers()
    if module.merged:  # peft unmerges when it disables, or at the next call
        with pytest.raises(UsageError, match="unmerge_adapter"):
            effective_weight(module)


# --- a PeftModel that is already loaded ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_peft_model_is_unwrapped(saved, tiny_tokenizer, tokens, family):
    wrapped = saved(family)[1]
    model = iw.load(wrapped, tokenizer=tiny_tokenizer)
    assert model.hf is wrapped.get_base_model()
    assert torch.equal(model.run(tokens).logits, logits(wrapped, tokens))


def test_what_is_no_language_model_is_a_usage_error():
    with pytest.raises(UsageError, match="A Linear is no Hugging Face model"):
        iw.load(torch.nn.Linear(2, 2))


def test_options_of_adapters_are_refused_for_a_loaded_model(saved):
    with pytest.raises(UsageError, match="merge it yourself"):
        iw.load(saved("llama")[1], merge=True)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_another_base_can_be_given(saved, base, tokens):
    folder, wrapped = saved("llama")
    configure(folder, base_model_name_or_path=None)
    with pytest.raises(BrokenModel, match="names no base in its adapter_config.json: give base="):
        iw.load(folder)
    assert torch.equal(iw.load(folder, base=base("llama")).run(tokens).logits, logits(wrapped, tokens))


def test_a_base_that_is_gone_is_named(saved):
    folder, _ = saved("llama")
    configure(folder, base_model_name_or_path="/no/such/base")
    with pytest.raises(BrokenModel, match="adapter-llama is an adapter for /no/such/base, which cannot be loaded: .*give base="):
        iw.load(folder)
    with pytest.raises(UsageError, match="There is no folder /nor/this/one"):
        iw.load(folder, base="/nor/this/one")


def test_an_adapter_of_another_family_is_refused(saved, base):
    with pytest.raises(BrokenModel, match="cannot be put on this GPT2LMHeadModel: .*Target modules.*made for another base"):
        iw.load(saved("llama")[0], base=base("gpt2"))


def test_an_adapter_of_another_width_is_refused(saved, tiny_hf, tiny_tokenizer, tmp_path):
    tiny_hf("llama", intermediate_size=64).save_pretrained(tmp_path / "wider")
    with pytest.raises(BrokenModel, match="cannot be put on this LlamaForCausalLM: .*size mismatch"):
        iw.load(saved("llama")[0], base=tmp_path / "wider", tokenizer=tiny_tokenizer)


@pytest.mark.parametrize(("layers", "fault"), [(2, "has no place in the base for"), (5, "lacks")])
def test_an_adapter_of_another_depth_is_refused(saved, tiny_hf, tiny_tokenizer, tmp_path, layers, fault):
    tiny_hf("llama", num_hidden_layers=layers).save_pretrained(tmp_path / "other")
    with pytest.raises(BrokenModel, match=f"{fault} .* of its weights .*layers.*another base"):
        iw.load(saved("llama")[0], base=tmp_path / "other", tokenizer=tiny_tokenizer)


@pytest.mark.parametrize("kept", [0, 4, 1000, -100])
def test_damaged_weights_are_refused(saved, kept):
    folder, _ = saved("llama")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(BrokenModel, match="SafetensorError.*It is damaged"):
        iw.load(folder)


def test_a_missing_weight_is_named(saved):
    folder, _ = saved("llama")
    weights = load_file(folder / "adapter_model.safetensors")
    del weights["base_model.model.model.layers.1.mlp.gate_proj.lora_B.weight"]
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenModel, match="lacks 1 of its weights .*layers.1.mlp.gate_proj.lora_B"):
        iw.load(folder)


def test_nan_weights_are_named(saved):
    folder, _ = saved("llama")
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.model.layers.1.mlp.gate_proj.lora_B.weight"][0, 0] = float("nan")
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenModel, match="layers.1.mlp.gate_proj.lora_B"):
        iw.load(folder)
    with pytest.raises(BrokenModel, match="NaN"):
        iw.load(folder, merge=True)


def test_missing_weights_are_refused(saved):
    folder, _ = saved("llama")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(BrokenModel, match="has an adapter_config.json but no adapter_model.safetensors"):
        iw.load(folder)


@pytest.mark.parametrize("content", ["{", "", "[]", "\x00"])
def test_a_configuration_that_is_no_json_object_is_refused(saved, content):
    folder, _ = saved("llama")
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(BrokenModel, match="adapter_config.json is no JSON"):
        iw.load(folder)


@pytest.mark.parametrize("changes", [{"peft_type": "NEW"}, {"r": -1}, {"target_modules": 7}, {"lora_alpha": "much"}])
def test_a_configuration_that_makes_no_sense_never_raises_anything_but_our_errors(saved, changes):
    folder, _ = saved("llama")
    configure(folder, **changes)
    with pytest.raises(InnerworksError, match="adapter-llama"):
        iw.load(folder)


def test_without_peft_the_message_says_what_to_install(saved, monkeypatch):
    folder, _ = saved("llama")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install 'innerworks\[peft\]'"):
        iw.load(folder)


def test_a_base_that_is_an_adapter_itself_is_refused(saved, tmp_path):
    folder, _ = saved("llama")
    with pytest.raises(UnsupportedModel, match="it is an adapter itself"):
        iw.load(folder, base=folder)


def test_a_folder_with_a_model_and_an_adapter_is_refused(saved, tiny_hf):
    folder, _ = saved("llama")
    tiny_hf("llama").save_pretrained(folder)
    with pytest.raises(UsageError, match="holds a whole model and an adapter"):
        iw.load(folder)


def test_base_and_merge_are_refused_for_what_is_no_adapter(base):
    for options in ({"merge": True}, {"base": base("llama")}):
        with pytest.raises(UsageError, match="base= and merge= are for PEFT adapters"):
            iw.load(base("llama"), **options)


def test_an_adapter_that_changes_its_base_in_place_is_only_merged(saved, tokens):
    folder, wrapped = saved("gpt2", bias="all")
    weights = load_file(folder / "adapter_model.safetensors")
    for name in weights:
        if name.endswith("bias"):
            weights[name] += 0.5
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match="changes its base in place.*merge=True"):
        iw.load(folder)
    assert (iw.load(folder, merge=True).run(tokens).logits - logits(wrapped, tokens)).abs().max() > 0.1


@pytest.mark.parametrize(
    "changes", [{"lora_bias": True}, {"layer_replication": [[0, 2], [1, 3]]}, {"trainable_token_indices": [3]}]
)
def test_an_adapter_that_is_more_than_a_change_of_weights_is_only_merged(saved, changes):
    folder, _ = saved("llama", **changes)
    with pytest.raises(UnsupportedModel, match=f"The adapter has {next(iter(changes))}: .*merge=True"):
        iw.load(folder)


def test_an_adapter_that_is_no_lora_is_only_merged(saved, tokens):
    config = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    folder, wrapped = saved("llama", config)
    with pytest.raises(UnsupportedModel, match="ia3.layer.Linear is not read as one weight .*merge=True"):
        iw.load(folder)
    torch.testing.assert_close(iw.load(folder, merge=True).run(tokens).logits, logits(wrapped, tokens), atol=1e-4, rtol=0)


def test_prompt_tuning_is_refused(saved, tiny_hf):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    folder, wrapped = saved("llama", config)
    for merge in (False, True):
        with pytest.raises(UnsupportedModel, match="PROMPT_TUNING adapter adds inputs of its own"):
            iw.load(folder, merge=merge)
    with pytest.raises(UnsupportedModel, match="PROMPT_TUNING"):
        unwrap(wrapped)


def test_merging_one_end_of_tied_embeddings_is_refused(saved):
    folder, _ = saved("llama", target_modules=["lm_head", "q_proj"])
    with pytest.raises(UnsupportedModel, match="tied"):
        iw.load(folder, merge=True)


def test_find_adapter_tells_adapters_from_models(saved, base):
    folder, _ = saved("llama")
    configure(folder, revision="v2")
    adapter = find_adapter(folder)
    assert (adapter.base, adapter.base_revision) == (str(base("llama")), "v2")
    assert find_adapter(base("llama")) is None


def test_attach_works_in_place(saved, tiny_hf):
    folder, _ = saved("llama")
    hf = tiny_hf("llama")
    assert attach(hf, find_adapter(folder)) is hf
    with pytest.raises(ModelError):
        attach(tiny_hf("gpt2"), find_adapter(folder))
