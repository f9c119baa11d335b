"""Loading: what a person has becomes a certified model, or one clear error that says what is wrong with it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import innerworks as iw
from innerworks.errors import BrokenModel, InnerworksError, ModelError, UnsupportedModel, UsageError
from innerworks.model import specimen as specimens


@pytest.fixture(scope="module")
def saved(tiny_hf, tiny_tokenizer, tmp_path_factory):
    """`saved("llama")`: a folder that save_pretrained wrote; tests that damage one copy it first."""

    def save(family):
        folder = tmp_path_factory.getbasetemp() / f"saved-{family}"
        if not folder.exists():
            tiny_hf(family).save_pretrained(folder)
            tiny_tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a saved llama that a test may damage."""
    import shutil

    return shutil.copytree(saved("llama"), tmp_path / "damaged")


def configure(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("as_text", [True, False])
def test_a_local_folder_is_read_back_exactly(saved, family, recorded, tokens, as_text):
    folder = saved(family)
    model = iw.load(str(folder) if as_text else folder)
    assert torch.equal(model.run(tokens).logits, recorded(family, opened=False).logits)
    assert model.name == f"saved-{family}" and model.certificate.model == model.name
    assert model.run("the cat sat").tokens.tolist() == [[2, 14, 17]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_precision_is_kept(saved, tokens, dtype):
    model = iw.load(saved("llama"), dtype=dtype)
    assert model.run(tokens).logits.dtype == getattr(torch, dtype)
    assert model.certificate.dtype == dtype


def test_a_model_that_is_already_loaded_is_taken_as_it_is(tiny_hf, tiny_tokenizer):
    hf = tiny_hf("gpt2").train()
    model = iw.load(hf, tokenizer=tiny_tokenizer)
    assert model.hf is hf and not hf.training
    assert model.name == "GPT2LMHeadModel" and model.run("the cat").mask.sum() == 2


def test_another_tokenizer_takes_the_place_of_the_folders_own(saved, opening_tokenizer):
    model = iw.load(saved("llama"), tokenizer=opening_tokenizer)
    assert model.run("the cat").tokens.tolist() == [[1, 2, 14]]


def test_a_folder_without_a_tokenizer_loads_with_one_that_is_given(folder, tiny_tokenizer):
    for file in folder.glob("*token*"):
        file.unlink()
    model = iw.load(folder, tokenizer=tiny_tokenizer)
    assert model.run("the cat").tokens.tolist() == [[2, 14]]
    with pytest.raises(ModelError, match="tokenizer"):
        iw.load(folder)


def test_progress_is_told_in_steps(saved):
    steps = []
    iw.load(saved("gpt2"), progress=steps.append)
    assert steps == [f"Loading {saved('gpt2')}"]


def test_nothing_is_printed_while_loading(saved, capfd):
    iw.load(saved("gpt2"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("family", "says"),
    [
        ("lama", "No adapter for the family 'lama'. Known families: gpt2, llama. Did you mean llama?"),
        ("gpt3", "No adapter for the family 'gpt3'. .* Did you mean gpt2?"),
        ("mamba", "No adapter for the family 'mamba'"),
        (None, "No adapter for the family 'None'"),
    ],
)
def test_an_unknown_family_is_refused_by_name_before_weights_are_read(folder, family, says):
    (folder / "model.safetensors").write_bytes(b"never read")
    configure(folder, model_type=family)
    with pytest.raises(UnsupportedModel, match=says):
        iw.load(folder)


def test_a_model_of_a_known_family_that_is_no_causal_lm_is_refused(tiny_hf):
    from transformers import LlamaForSequenceClassification

    hf = LlamaForSequenceClassification(tiny_hf("llama").config)
    with pytest.raises(UnsupportedModel, match="LlamaForSequenceClassification is of the family 'llama' .* LlamaForCausalLM"):
        iw.Model(hf, None)


def test_a_loaded_model_of_an_unknown_family_is_refused_with_how_to_add_it(tiny_hf):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    with pytest.raises(UnsupportedModel, match=r"'gpt_neox'.*adapters/<family>.py"):
        iw.Model(GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, bos_token_id=1, eos_token_id=1)), None)


@pytest.mark.parametrize(
    ("family", "option", "value"),
    [("gpt2", "add_cross_attention", True), ("gpt2", "reorder_and_upcast_attn", True), ("llama", "pretraining_tp", 2)],
)
def test_an_option_that_would_be_measured_wrongly_is_refused(tiny_hf, family, option, value):
    hf = tiny_hf(family, **({} if option == "pretraining_tp" else {option: value}))
    hf.config.pretraining_tp = value if option == "pretraining_tp" else 1
    with pytest.raises(UnsupportedModel, match=f"{option}={value!r}"):
        iw.Model(hf, None)


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "~/models/mine", "a/b/c"])
def test_what_is_nowhere_is_a_usage_error(source):
    with pytest.raises(UsageError, match=f"There is no folder {source}"):
        iw.load(source)


def test_a_misspelt_specimen_is_answered_with_the_right_name():
    with pytest.raises(UsageError, match="No specimen is called 'smollm2-135m-instuct'. Did you mean smollm2-135m-instruct?"):
        iw.load("smollm2-135m-instuct")


def test_a_model_of_the_hub_is_refused_by_family_before_its_weights_are_fetched(monkeypatch):
    import sys

    load_module = sys.modules["innerworks.model.load"]

    monkeypatch.setattr(
        load_module.AutoConfig, "from_pretrained", lambda *args, **kwargs: type("Config", (), {"model_type": "mamba"})()
    )
    monkeypatch.setattr(load_module.AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: pytest.fail("fetched"))
    with pytest.raises(UnsupportedModel, match="No adapter for the family 'mamba'"):
        iw.load("someone/mamba-7b")


def test_options_of_loading_are_refused_for_a_model_that_is_loaded(tiny_hf):
    for options in ({"device": "cuda"}, {"dtype": "bfloat16"}, {"revision": "main"}):
        with pytest.raises(UsageError, match="this one is"):
            iw.load(tiny_hf("gpt2"), **options)


def test_a_folder_without_a_config_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="has no config.json: give the folder that save_pretrained wrote"):
        iw.load(tmp_path)


def test_a_gguf_file_is_refused_by_name(tmp_path):
    with pytest.raises(UnsupportedModel, match="gguf"):
        iw.load(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "float8"}, "dtype='float8': one of float32, bfloat16, float16"),
        ({"device": "gpu"}, "device='gpu' is no device"),
    ],
)
def test_an_unknown_precision_or_device_is_a_usage_error(saved, options, says):
    with pytest.raises(UsageError, match=says):
        iw.load(saved("llama"), **options)


def test_a_cuda_device_that_is_not_there_is_a_usage_error(saved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device='cuda:1', but PyTorch sees no CUDA device"):
        iw.load(saved("llama"), device="cuda:1")


@pytest.mark.parametrize("kept", [0, 4, 1000, -100])
def test_a_truncated_weights_file_is_a_broken_model(folder, kept):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(BrokenModel, match="damaged"):
        iw.load(folder)


def test_weights_missing_in_the_file_are_named(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"], weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenModel, match="lacks 2 weights .*model.layers.1.mlp.down_proj.weight, model.norm.weight"):
        iw.load(folder)


def test_weights_that_the_model_has_no_place_for_are_named(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.q_proj.bias"] = torch.ones(32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenModel, match="model.layers.1.self_attn.q_proj.bias"):
        iw.load(folder)


def test_weights_of_another_shape_are_refused(folder):
    configure(folder, intermediate_size=64)
    with pytest.raises(ModelError, match="could not be loaded"):
        iw.load(folder)


def test_nan_weights_in_a_file_are_named(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.v_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenModel, match="model.layers.0.self_attn.v_proj.weight"):
        iw.load(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="could not be loaded"):
        iw.load(folder)


@pytest.mark.parametrize("content", ["{", "", "[]", "\x00"])
def test_a_config_that_is_no_json_object_is_a_broken_model(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(BrokenModel, match="config.json"):
        iw.load(folder)


def test_loading_never_raises_anything_but_our_errors(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InnerworksError):
        iw.load(folder)


def test_a_specimens_name_opens_its_folder(saved, monkeypatch, tmp_path):
    monkeypatch.setenv("INNERWORKS_CACHE", str(tmp_path))
    import shutil

    folder = tmp_path / "specimens" / "smollm2-135m-instruct"
    shutil.copytree(saved("llama"), folder)
    (folder / specimens.READY).write_text("{}")
    assert iw.load().name == "smollm2-135m-instruct"
