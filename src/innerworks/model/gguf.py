"""Read a GGUF file, the format of llama.cpp, as an ordinary Hugging Face model in floating point.

1. The `gguf` package walks the whole file: a damaged or cut one is refused before anything else happens.
2. transformers builds the configuration. What the file states about the arithmetic (rotary base and scaling, windows, epsilons,
   soft caps) is compared with it: transformers knows no place for some of these and would silently take a default.
3. transformers reads the weights, dequantised to the dtype asked for. Every number of the file must have found its place.
4. Nothing is quantised any more, so the marks of quantisation are taken off.

What it does not do: keep weights in their blocks, read the parts of a split file, or repair what transformers does not follow.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gguf import GGUFReader, GGUFValueType
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from innerworks.errors import BrokenModel, UnsupportedModel
from innerworks.model.adapters import FAMILIES, refuse_unknown_family
from innerworks.model.quiet import quiet

FOREIGN_ROTARY = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # rotary speeds as tensors


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a GGUF file says about itself."""

    architecture: str
    stated: Mapping[str, object]  # the options of its architecture, without the architecture's name in front
    elements: Mapping[str, int]  # tensor -> how many numbers it holds
    parts: int  # files that the model is split over


def read_gguf(
    file: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device_map: str | dict[str, Any] | None = None,
) -> PreTrainedModel:
    """What model lies in this file? A plain model in `dtype`, with no mark of quantisation left.

    Raises BrokenModel for a damaged file, UnsupportedModel for an architecture or an option that would not be read faithfully.
    """
    contents = contents_of(file)
    config = _config(file, contents)
    refuse_unfaithful(file, contents, config)
    implementation = FAMILIES[config.model_type].implementation
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": implementation, "trust_remote_code": False}
    try:
        with quiet(), _no_bar():
            hf: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, config=config, device_map=device_map, **options
            )
    except Exception as error:  # whatever transformers raises: one message, the cause attached
        raise BrokenModel(
            f"The weights of {file} do not fit its own configuration: {_reason(error)}. Get another copy."
        ) from error
    _refuse_homeless(file, contents, hf)
    return _unmarked(hf)


def read_gguf_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """What tokenizer lies in this file? Raises UnsupportedModel where transformers cannot build it."""
    try:
        with quiet(), _no_bar():
            return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except Exception as error:  # whatever transformers raises: one message, the cause attached
        raise UnsupportedModel(
            f"transformers {transformers.__version__} cannot read the tokenizer of {file}: {_reason(error)}. "
            "Give one: tokenizer=."
        ) from error


class _WholeReader(GGUFReader):
    """The reader of the `gguf` package, which trusts what a file says about its lengths; this one compares them with the file."""

    def _within(self, end: int) -> None:
        if end > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data):,}, but something in it reaches to byte {end:,}")

    def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:  # NumPy's own integers, too
        self._within(int(offset) + np.dtype(dtype).itemsize * int(count))
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(self, orig_offs: Any, raw_type: Any) -> Any:
        if raw_type == GGUFValueType.ARRAY:
            kind, length = int(self._get(orig_offs, np.uint32)[0]), int(self._get(orig_offs + 4, np.uint64)[0])
            smallest = 8 if kind == GGUFValueType.STRING else 1  # bytes of an element; a string has its length in front
            self._within(int(orig_offs) + 12 + smallest * length)
        return super()._get_field_parts(orig_offs, raw_type)


def contents_of(file: Path) -> Contents:
    """Walk through a whole file without reading its weights; raise BrokenModel where it is damaged."""
    try:
        reader = _WholeReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
        architecture = fields["general.architecture"]
    except KeyError as error:
        raise BrokenModel(f"{file} is damaged: it has no {error}. Get another copy.") from error
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise BrokenModel(f"{file} is no whole GGUF file: {_reason(error)}. Get another copy.") from error
    prefix = f"{architecture}."
    return Contents(
        architecture=str(architecture),
        stated={name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)},
        elements={str(tensor.name): int(tensor.n_elements) for tensor in reader.tensors},
        parts=int(fields.get("split.count", 1)),
    )


def _config(file: Path, contents: Contents) -> PreTrainedConfig:
    if contents.parts > 1:
        raise UnsupportedModel(
            f"{file} is one of {contents.parts} parts of a model. Join them with llama.cpp's `llama-gguf-split --merge` first."
        )
    _refuse_other_blocks(file, contents)
    try:
        with quiet(), _no_bar():
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except Exception as error:  # the file is whole: transformers does not know what is in it
        raise UnsupportedModel(
            f"transformers {transformers.__version__} cannot read a GGUF of the architecture {contents.architecture!r} ({file}): "
            f"{_reason(error)}. Load the model's original weights instead, a folder or a hub id."
        ) from error
    refuse_unknown_family(config.model_type)
    return config


def _refuse_other_blocks(file: Path, contents: Contents) -> None:
    """As many blocks must be there as are stated: a model of another number of blocks would be built, however large."""
    there = len({name.split(".")[1] for name in contents.elements if name.startswith("blk.")})
    stated = contents.stated.get("block_count", there)
    if there and stated != there:
        raise BrokenModel(f"{file} says that it has {stated} blocks, but holds {there}. It is damaged: get another copy.")


def refuse_unfaithful(file: Path, contents: Contents, config: PreTrainedConfig) -> None:
    """Raise UnsupportedModel where the file states something about the arithmetic that transformers' reading would ignore."""
    ignored = [f"the tensor {name}" for name in FOREIGN_ROTARY if name in contents.elements]
    used = _arithmetic(config)
    for option, taken in used.items():
        stated = contents.stated.get(option, taken)
        if not _same(stated, taken):
            ignored.append(f"{option}={stated!r} (it would take {taken!r})")
    if used["attention.sliding_window"] is not None and "attention.sliding_window" not in contents.stated:
        ignored.append(f"no attention.sliding_window (it would take {used['attention.sliding_window']!r})")
    if ignored:
        raise UnsupportedModel(
            f"{file} has {', '.join(ignored)}, which transformers {transformers.__version__} does not follow for the GGUF "
            f"architecture {contents.architecture!r}: another model would be studied. "
            "Load its original weights, a folder or a hub id."
        )


def _arithmetic(config: Any) -> dict[str, object]:
    """The options of llama.cpp that change the arithmetic, each with what a model of this configuration takes."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    share = rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    kind = rope.get("rope_type", "default")
    epsilons = ("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
    epsilon = next((getattr(config, name) for name in epsilons if hasattr(config, name)), None)
    return {
        "rope.freq_base": rope.get("rope_theta"),
        "rope.dimension_count": int(head * share),
        "rope.scaling.type": "none" if kind == "default" else kind,
        "rope.scale_linear": 1.0,
        "attention.layer_norm_epsilon": epsilon,
        "attention.layer_norm_rms_epsilon": epsilon,
        "attention.sliding_window": getattr(config, "sliding_window", None),
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "final_logit_softcapping": getattr(config, "final_logit_softcapping", None),
    }


def _same(stated: object, taken: object) -> bool:
    if isinstance(stated, int | float) and isinstance(taken, int | float):
        return math.isclose(stated, taken, rel_tol=1e-5)  # the file holds float32
    return stated == taken


def _refuse_homeless(file: Path, contents: Contents, hf: PreTrainedModel) -> None:
    """As many numbers must lie in the model as in the file; transformers drops a tensor that it knows no place for."""
    tied = bool(getattr(hf.config, "tie_word_embeddings", False))
    there = sum(count for name, count in contents.elements.items() if not (tied and name == "output.weight"))
    here = sum(parameter.numel() for parameter in hf.parameters())
    if there != here:
        raise BrokenModel(
            f"{file} holds {there:,} weights, but a {type(hf).__name__} of its configuration has {here:,}: some would be left "
            "out, or be random numbers. Load the model's original weights, a folder or a hub id."
        )


def _unmarked(hf: Any) -> PreTrainedModel:
    """Take off the marks of quantisation: the weights are plain floating-point numbers now."""
    packed = sorted(name for name, weight in hf.named_parameters() if not weight.is_floating_point())
    if packed:
        raise UnsupportedModel(f"{len(packed)} weights are still packed ({packed[0]}, ...): they were not dequantised.")
    hf.hf_quantizer = None
    vars(hf.config).pop("quantization_config", None)
    hf.config.name_or_path = ""
    return hf


@contextmanager
def _no_bar() -> Iterator[None]:
    """Keep the bar of transformers' GGUF reader off the screen: it is plain tqdm, which no setting of transformers reaches."""
    from transformers import modeling_gguf_pytorch_utils as reader

    module: Any = reader
    shown = module.tqdm
    module.tqdm = partial(shown, disable=True)
    try:
        yield
    finally:
        module.tqdm = shown


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0].removesuffix('.')}"
