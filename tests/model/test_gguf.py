"""GGUF files: read exactly as the model they were written from, or refused with one clear error."""

import json

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants

import innerworks as iw
from innerworks.errors import BrokenModel, ModelError, UnsupportedModel, UsageError
from innerworks.model.gguf import read_gguf

NAMES = {  # transformers -> GGUF
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def paired(weight, heads):
    """The order of rows that llama.cpp's rotation wants: the two halves of each head interleaved."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def tensors_of(hf):
    config = hf.config
    for name, weight in hf.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if "q_proj" in name or "k_proj" in name:
            weight = paired(weight, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        yield name, weight.contiguous().numpy()


def write(path, hf, *, architecture="llama", extra=None, without=(), quantise=None, more_tensors=(), change=None):
    """Write a llama as a GGUF file with a byte-level tokenizer."""
    config = hf.config
    writer = GGUFWriter(path, architecture)
    writer.add_name("tiny")
    numbers = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.dimension_count": config.head_dim,
        "vocab_size": config.vocab_size,
        **(change or {}),
    }
    for name, value in numbers.items():
        writer.add_uint32(f"{architecture}.{name}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    for name, value in {"rope.freq_base": config.rope_parameters["rope_theta"], **(extra or {})}.items():
        add = {float: writer.add_float32, int: writer.add_uint32, str: writer.add_string}[type(value)]
        add(name if name.startswith(("general.", "split.")) else f"{architecture}.{name}", value)
    add_tokenizer(writer, config.vocab_size)
    for name, weight in [*tensors_of(hf), *more_tensors]:
        if name in without:
            continue
        if quantise is not None and weight.ndim == 2:
            writer.add_tensor(name, quants.quantize(weight, quantise), raw_dtype=quantise)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer, vocab):
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens, merges = [*bytes_to_unicode().values(), "<|end|>", "th", "Ġth", "Ġthe", "Ġc"], ["t h", "Ġ th", "Ġth e", "Ġ c"]
    kinds = [1] * len(tokens)
    kinds[256] = 3  # control
    filler = [f"<|unused{i}|>" for i in range(vocab - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens + filler)
    writer.add_token_types(kinds + [3] * len(filler))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)


@pytest.fixture(scope="module")
def llama(tiny_hf):
    return tiny_hf("llama", rope_parameters={"rope_type": "default", "rope_theta": 50_000.0})


@pytest.fixture(scope="module")
def file(llama, tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama)


@pytest.fixture(params=["llama", "untied"])
def source(request, llama, tiny_hf):
    return llama if request.param == "llama" else tiny_hf("llama", tie_word_embeddings=False)


@pytest.mark.parametrize("as_text", [True, False])
def test_a_gguf_file_is_read_as_the_model_that_it_was_written_from(llama, file, tokens, as_text):
    model = iw.load(str(file) if as_text else file)
    with torch.no_grad():
        expected = llama(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(model.run(tokens).logits, expected, atol=1e-5, rtol=0)
    assert model.name == "tiny.gguf" and model.certificate.model == "tiny.gguf"


def test_every_weight_is_the_one_that_was_written(source, tmp_path):
    hf = read_gguf(write(tmp_path / "x.gguf", source))
    read = hf.state_dict()
    assert all(torch.equal(read[name], weight) for name, weight in source.state_dict().items())
    assert hf.config.tie_word_embeddings == source.config.tie_word_embeddings


def test_its_tokenizer_is_read_too(file):
    model = iw.load(file)
    assert model.run(" the cat").tokens.tolist() == [[259, 260, *model.tokenizer.convert_tokens_to_ids(["a", "t"])]]
    assert model.tokenizer.eos_token == "<|end|>"


def test_a_tokenizer_that_is_given_takes_the_place_of_its_own(file, tiny_tokenizer):
    assert iw.load(file, tokenizer=tiny_tokenizer).run("the cat").tokens.tolist() == [[2, 14]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_is_dequantised_to_the_precision_asked_for(file, dtype):
    model = iw.load(file, dtype=dtype)
    assert {weight.dtype for weight in model.hf.parameters()} == {getattr(torch, dtype)}
    assert model.certificate.dtype == dtype


def test_a_quantised_file_is_near_its_source_and_bears_no_mark_of_quantisation(tiny_hf, tmp_path):
    llama = tiny_hf("llama", intermediate_size=64)
    model = iw.load(write(tmp_path / "q8.gguf", llama, quantise=GGMLQuantizationType.Q8_0))
    assert getattr(model.hf, "hf_quantizer", None) is None and not hasattr(model.hf.config, "quantization_config")
    assert all(weight.dtype == torch.float32 for weight in model.hf.parameters())
    down = model.hf.get_submodule("model.layers.0.self_attn.o_proj").weight
    torch.testing.assert_close(down, llama.get_submodule("model.layers.0.self_attn.o_proj").weight, atol=0.01, rtol=0)


def test_what_was_read_can_be_saved_and_opened_as_a_folder(file, tmp_path, tokens):
    hf = read_gguf(file)
    hf.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config and str(file.parent) not in json.dumps(config)
    again = iw.load(tmp_path, tokenizer=iw.load(file).tokenizer)
    assert torch.equal(again.run(tokens).logits, iw.Model(hf, None).run(tokens).logits)


def test_a_device_map_is_passed_on(file):
    assert iw.load(file, device_map={"": "cpu"}).device == torch.device("cpu")


def test_nothing_is_printed_while_reading(file, capfd):
    steps = []
    iw.load(file, progress=steps.append)
    assert capfd.readouterr() == ("", "") and steps == [f"Loading {file}"]


# --- refusals ------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="There is no file .*model.gguf"):
        iw.load(tmp_path / "model.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"GGUF", b"not a model at all", b"GGUF\x03\x00\x00\x00", b"\x00" * 100])
def test_what_is_no_gguf_is_a_broken_model(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(BrokenModel, match=r"x\.gguf is (no whole GGUF file|damaged): .* Get another copy"):
        iw.load(tmp_path / "x.gguf")


@pytest.mark.parametrize("kept", [30, 200, 2000, 0.3, 0.9, -1])
def test_a_truncated_file_says_where_it_ends(file, tmp_path, kept):
    whole = file.read_bytes()
    part = whole[: int(kept * len(whole)) if isinstance(kept, float) else kept]
    (tmp_path / "x.gguf").write_bytes(part)
    with pytest.raises(BrokenModel, match=f"it ends at byte {len(part):,}, but something in it reaches to byte"):
        iw.load(tmp_path / "x.gguf")


def test_a_corrupt_header_never_raises_anything_but_our_errors(file, tmp_path):
    """Each of 33 bytes of the header flipped in turn: read as a model all the same, or refused; never another exception."""
    whole, path = file.read_bytes(), tmp_path / "x.gguf"
    refused = 0
    for place in range(4, 1000, 31):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_gguf(path)
        except ModelError:
            refused += 1
    assert refused > 15


def test_nan_weights_are_named(llama, tmp_path):
    import copy

    broken = copy.deepcopy(llama)
    broken.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(BrokenModel, match="model.layers.1.mlp.down_proj.weight"):
        iw.load(write(tmp_path / "x.gguf", broken))


def test_a_tensor_that_is_missing_is_a_broken_model(llama, tmp_path):
    with pytest.raises(BrokenModel, match=r"holds [\d,]+ weights, but a LlamaForCausalLM .* has [\d,]+"):
        iw.load(write(tmp_path / "x.gguf", llama, without=("blk.1.ffn_down.weight",)))


def test_a_tensor_that_has_no_place_is_a_broken_model(llama, tmp_path):
    bias = ("blk.1.attn_q.bias", torch.ones(32).numpy())
    with pytest.raises(BrokenModel, match=r"holds [\d,]+ weights, but a LlamaForCausalLM"):
        iw.load(write(tmp_path / "x.gguf", llama, more_tensors=[bias]))


def test_a_configuration_of_another_shape_is_a_broken_model(llama, tmp_path):
    with pytest.raises(BrokenModel, match="do not fit its own configuration"):
        iw.load(write(tmp_path / "x.gguf", llama, change={"feed_forward_length": 64}))


@pytest.mark.parametrize("architecture", ["clip", "a-new-one"])
def test_an_architecture_that_transformers_cannot_read_is_named(llama, tmp_path, architecture):
    path = write(tmp_path / "x.gguf", llama, architecture=architecture)
    with pytest.raises(
        UnsupportedModel, match=f"cannot read a GGUF of the architecture '{architecture}' .*x.gguf.*original weights"
    ):
        iw.load(path)


def test_an_architecture_without_an_adapter_is_refused_by_family(llama, tmp_path):
    with pytest.raises(UnsupportedModel, match="No adapter for the family 'nemotron'"):
        iw.load(write(tmp_path / "x.gguf", llama, architecture="nemotron"))


def test_one_part_of_a_split_file_is_refused(llama, tmp_path):
    with pytest.raises(UnsupportedModel, match="one of 3 parts .*llama-gguf-split --merge"):
        iw.load(write(tmp_path / "x.gguf", llama, extra={"split.count": 3}))


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"rope.scaling.type": "linear"}, "rope.scaling.type='linear' .it would take 'none'"),
        ({"attention.sliding_window": 64}, "attention.sliding_window=64 .it would take None"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0 .it would take None"),
    ],
)
def test_an_option_that_transformers_would_ignore_is_refused(llama, tmp_path, extra, says):
    with pytest.raises(UnsupportedModel, match=says):
        iw.load(write(tmp_path / "x.gguf", llama, extra=extra))


def test_a_partial_rotation_that_transformers_would_ignore_is_refused(llama, tmp_path):
    with pytest.raises(ModelError):  # as head_dim, it fits no weight
        iw.load(write(tmp_path / "x.gguf", llama, change={"rope.dimension_count": 4}))


def test_rotary_speeds_kept_as_a_tensor_are_refused(llama, tmp_path):
    """Llama 3 files hold them; transformers drops them."""
    speeds = ("rope_freqs.weight", torch.ones(4).numpy())
    with pytest.raises(UnsupportedModel, match="the tensor rope_freqs.weight"):
        iw.load(write(tmp_path / "x.gguf", llama, more_tensors=[speeds]))


def test_a_tokenizer_that_cannot_be_read_asks_for_one(llama, tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(GGUFWriter, "add_tokenizer_model", lambda self, model: self.add_string("tokenizer.ggml.model", "odd"))
    path = write(tmp_path / "x.gguf", llama)
    with pytest.raises(UnsupportedModel, match="cannot read the tokenizer of .*x.gguf.*tokenizer="):
        iw.load(path)
    assert iw.load(path, tokenizer=tiny_tokenizer).run("the cat").tokens.tolist() == [[2, 14]]
