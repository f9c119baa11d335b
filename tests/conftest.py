"""What all tests share: type checks at run time, and tiny models and a tokenizer that are built, never fetched."""

import os

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped


def _check_named_functions(function: object, *, typechecker: object) -> object:
    """Leave closures unchecked: they are made anew at every call, and so would their checks be (half of the time of a test)."""
    nested = "<locals>" in getattr(function, "__qualname__", "")
    return function if nested else _jaxtyped(function, typechecker=typechecker)


jaxtyping.jaxtyped = lambda *, typechecker: lambda function: _check_named_functions(function, typechecker=typechecker)
jaxtyping.install_import_hook(["innerworks"], "beartype.beartype")  # before anything imports innerworks
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny models are slower with threads

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

FAMILIES = ("gpt2", "gpt2-inverse-layer", "llama", "llama-bias")
VOCAB = 320
POSITIONS = 192
WORDS = "the a of to and in is was that he she it cat dog owl sat ran saw old red mat tree sea sun . ,".split()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the long calibration runs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = [item for item in items if item.get_closest_marker("slow") and not config.getoption("--slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]
    for item in items:
        if item.get_closest_marker("gpu") and not _cuda():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device here"))


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Every tiny family in turn."""
    return request.param


@pytest.fixture(scope="session")
def tiny_hf() -> Callable[..., Any]:
    """`tiny_hf("llama", num_hidden_layers=2)`: a fresh random Hugging Face model, the same weights at every call."""
    return _build


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any) -> Callable[[str], Any]:
    """`tiny_model("gpt2")`: a certified `innerworks.Model`, built once. Tests that change weights build their own."""
    import innerworks as iw

    built: dict[str, Any] = {}

    def model(family: str) -> Any:
        if family not in built:
            built[family] = iw.Model(_build(family), tiny_tokenizer, name=f"tiny-{family}")
        return built[family]

    return model


@pytest.fixture
def model(tiny_model: Callable[[str], Any], family: str) -> Any:
    """A certified tiny model of every family in turn."""
    return tiny_model(family)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Word-level and fast: 320 words, no token in front; id 0 is `<unk>`, id 1 the special `<end>`."""
    return word_tokenizer()


@pytest.fixture(scope="session")
def opening_tokenizer() -> Any:
    """The same with `<end>` put in front of every text, as Llama does with its BOS."""
    return word_tokenizer(opening="<end>")


@pytest.fixture(scope="session")
def tokens() -> Any:
    """Two sequences of 12 token ids."""
    import torch

    return torch.randint(2, VOCAB, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def specimen() -> Any:
    """The default specimen, fetched on first use; tests that use it are marked `specimen`."""
    import innerworks as iw

    return iw.load()


def word_tokenizer(*, opening: str | None = None) -> Any:
    """Build a tokenizer that knows WORDS and w30, w31, ...: one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<end>", *WORDS]
    words += [f"w{i}" for i in range(len(words), VOCAB)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if opening is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{opening} $A", special_tokens=[(opening, words.index(opening))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")


def _build(family: str, **changes: Any) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    gpt2 = dict(vocab_size=VOCAB, n_positions=POSITIONS, n_embd=32, n_layer=3, n_head=4, n_inner=48)
    llama = dict(
        vocab_size=VOCAB,
        max_position_embeddings=POSITIONS,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=True,
    )
    kind, config, sizes = {
        "gpt2": (GPT2LMHeadModel, GPT2Config, gpt2),
        "gpt2-inverse-layer": (GPT2LMHeadModel, GPT2Config, {**gpt2, "scale_attn_by_inverse_layer_idx": True}),
        "llama": (LlamaForCausalLM, LlamaConfig, llama),
        "llama-bias": (LlamaForCausalLM, LlamaConfig, {**llama, "attention_bias": True, "tie_word_embeddings": False}),
    }[family]
    ends = dict(bos_token_id=1, eos_token_id=1, initializer_range=0.2)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        hf = kind(config(**{**sizes, **ends, **changes}))
        for weight in hf.parameters():  # biases and norms too: at zero and one they would hide mistakes
            weight += 0.1 * torch.randn_like(weight)
    return hf.eval()
