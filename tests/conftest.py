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

from families import FEW, VOCAB, build  # noqa: E402

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


@pytest.fixture(params=FEW)
def family(request: pytest.FixtureRequest) -> str:
    """A few tiny families in turn; a test of all of them says `@pytest.mark.parametrize("family", families.ALL)`."""
    return request.param


@pytest.fixture(scope="session")
def tiny_hf() -> Callable[..., Any]:
    """`tiny_hf("llama", num_hidden_layers=2)`: a fresh random Hugging Face model, the same weights at every call."""
    return build


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any) -> Callable[[str], Any]:
    """`tiny_model("gpt2")`: a certified `innerworks.Model`, built once. Tests that change weights build their own."""
    import innerworks as iw

    built: dict[str, Any] = {}

    def model(family: str) -> Any:
        if family not in built:
            built[family] = iw.Model(build(family), tiny_tokenizer, name=f"tiny-{family}")
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


def word_tokenizer(*, opening: str | None = None, unknown: str = "<unk>", words: list[str] = WORDS) -> Any:
    """Build a tokenizer that knows some words and w30, w31, ...: one token per word; unknown: what stands for all others."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<end>", *words]
    words += [f"w{i}" for i in range(len(words), VOCAB)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if opening is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{opening} $A", special_tokens=[(opening, words.index(opening))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, eos_token="<end>")


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[..., Any]:
    """`tokenizer_of(words=[...])`: one token for each of these words."""
    return word_tokenizer


@pytest.fixture(scope="session")
def agreeing_tokenizer() -> Callable[..., Any]:
    """`agreeing_tokenizer(opening, unknown=word, without=words)`: one token for each word of the agreement task."""
    from innerworks.text.tasks.agreement import BETWEEN, NOUNS, TEMPLATES, VERBS

    frames = {word for some in TEMPLATES.values() for template in some for word in template.split() if "{" not in word}
    words = sorted(frames | {word for both in (*NOUNS, *BETWEEN, *VERBS) for word in both})

    def make(opening: str | None = None, *, unknown: str = "<unk>", without: tuple[str, ...] = ()) -> Any:
        return word_tokenizer(opening=opening, unknown=unknown, words=[word for word in words if word not in without])

    return make
