"""Loading: what a person has becomes a certified model, or one clear error that says what is wrong with it."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import families
import innerworks as iw
from innerworks.errors import BrokenModel, InnerworksError, ModelError, UnsupportedModel, UsageError
from innerworks.model import specimen as specimens
from innerworks.model.adapters import FAMILIES
from innerworks.model.attention import PREFIX


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


@pytest.mark.parametrize("family", families.ALL)
def test_every_family_is_read_back_exactly_with_the_attention_that_it_needs(saved, tiny_hf, family, tokens):
    model = iw.load(saved(family))
    assert type(model.hf) is type(tiny_hf(family))
    assert model.hf.config._attn_implementation.removeprefix(PREFIX) == FAMILIES[family.partition("-")[0]].implementation
    weights = tiny_hf(family).state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in model.hf.state_dict().items())


def test_a_multimodal_wrapper_is_loaded_by_the_class_that_its_configuration_names(saved, monkeypatch):
    """As AutoModelForCausalLM does not know every wrapper."""
    load_module = sys.modules["innerworks.model.load"]
    monkeypatch.setattr(load_module.AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: pytest.fail("asked"))
    assert type(iw.load(saved("gemma3")).hf).__name__ == "Gemma3ForConditionalGeneration"


def test_a_class_that_the_configuration_names_but_the_adapter_does_not_know_is_not_taken(folder):
    configure(folder, architectures=["LlamaForSequenceClassification"])
    assert type(iw.load(folder).hf).__name__ == "LlamaForCausalLM"


def test_code_beside_a_model_is_never_run(folder):
    (folder / "code.py").write_text("raise SystemExit('run')")
    configure(folder, auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"})
    assert type(iw.load(folder).hf).__name__ == "LlamaForCausalLM"


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
        ("lama", "No adapter for the family 'lama'. Did you mean llama?.* Known families: gpt2, gpt_neox"),
        ("gpt3", "No adapter for the family 'gpt3'. Did you mean .*gpt2"),
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
    from transformers import NemotronConfig, NemotronForCausalLM

    sizes = dict(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=8
    )
    with pytest.raises(UnsupportedModel, match=r"'nemotron'.*adapters/<family>.py"):
        iw.Model(NemotronForCausalLM(NemotronConfig(**sizes, bos_token_id=1, eos_token_id=1)), None)


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
    load_module = sys.modules["innerworks.model.load"]

    monkeypatch.setattr(load_module.PreTrainedConfig, "get_config_dict", lambda *args, **kwargs: ({"model_type": "mamba"}, {}))
    monkeypatch.setattr(
        load_module.AutoConfig, "from_pretrained", lambda *args, **kwargs: type("Config", (), {"model_type": "mamba"})()
    )
    monkeypatch.setattr(load_module.AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: pytest.fail("fetched"))
    with pytest.raises(UnsupportedModel, match="No adapter for the family 'mamba'"):
        iw.load("someone/mamba-7b")


def test_options_of_loading_are_refused_for_a_model_that_is_loaded(tiny_hf):
    for options in ({"device": "cuda"}, {"dtype": "bfloat16"}, {"revision": "main"}, {"device_map": "auto"}, {"merge": True}):
        with pytest.raises(UsageError, match="this one is"):
            iw.load(tiny_hf("gpt2"), **options)


def test_a_folder_without_a_config_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="has no config.json: give the folder that save_pretrained wrote"):
        iw.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "float8"}, "dtype='float8': one of float32, bfloat16, float16"),
        ({"device": "gpu"}, "device='gpu' is no device"),
        ({"device": "cpu", "device_map": "auto"}, "device='cpu' and device_map='auto' both say where the model goes"),
    ],
)
def test_an_unknown_precision_or_device_is_a_usage_error(saved, options, says):
    with pytest.raises(UsageError, match=says):
        iw.load(saved("llama"), **options)


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}])
def test_a_device_map_is_passed_to_transformers(saved, recorded, tokens, device_map):
    model = iw.load(saved("llama"), device_map=device_map)
    assert model.device == torch.device("cpu")
    assert torch.equal(model.run(tokens).logits, recorded("llama", opened=False).logits)


@pytest.mark.parametrize("device_map", ["nowhere", {"": "nowhere"}])
def test_a_device_map_that_makes_no_sense_is_a_clear_error(saved, device_map):
    with pytest.raises(ModelError, match="saved-llama could not be loaded: "):
        iw.load(saved("llama"), device_map=device_map)


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


@pytest.fixture
def hub(monkeypatch, folder):
    """The hub without a network: `someone/model` is a folder with a model, everything else is not there."""
    load_module = sys.modules["innerworks.model.load"]
    real = load_module.PreTrainedConfig.get_config_dict

    def config(source, **options):
        if source == "someone/model":
            return real(folder, **options)
        raise OSError(f"{source} does not appear to have a file named config.json")

    monkeypatch.setattr(load_module.PreTrainedConfig, "get_config_dict", config)
    return load_module


def test_a_hub_id_that_is_nowhere_is_a_clear_error(hub, monkeypatch):
    monkeypatch.setattr(hub.peft, "find_adapter", lambda source, revision: None)
    with pytest.raises(ModelError, match="someone/nothing could not be loaded: OSError: .*no.* config.json|does not appear"):
        iw.load("someone/nothing")


def test_a_hub_id_without_a_model_may_be_an_adapter(hub, monkeypatch):
    asked = []
    adapter = hub.peft.PeftAdapter(where="someone/lora", revision="v1", base=None, base_revision=None)
    monkeypatch.setattr(hub.peft, "find_adapter", lambda source, revision: asked.append((source, revision)) or adapter)
    with pytest.raises(BrokenModel, match="The adapter someone/lora names no base"):
        iw.load("someone/lora", revision="v1")
    assert asked == [("someone/lora", "v1")]


def test_a_specimens_name_opens_its_folder(saved, monkeypatch, tmp_path):
    monkeypatch.setenv("INNERWORKS_CACHE", str(tmp_path))
    import shutil

    folder = tmp_path / "specimens" / "smollm2-135m-instruct"
    shutil.copytree(saved("llama"), folder)
    (folder / specimens.READY).write_text("{}")
    assert iw.load().name == "smollm2-135m-instruct"
