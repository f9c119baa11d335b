"""Load a model by whatever a person has: a specimen's name, a folder, a hub id, a .gguf file, an adapter, or the model itself."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from innerworks.errors import BrokenModel, InnerworksError, ModelError, UnsupportedModel, UsageError, near_misses
from innerworks.model import peft
from innerworks.model.adapters import FAMILIES, refuse_unknown_family
from innerworks.model.gguf import read_gguf, read_gguf_tokenizer
from innerworks.model.model import Model
from innerworks.model.quiet import quiet
from innerworks.model.specimen import DEFAULT, SPECIMENS, fetch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

DeviceMap = str | dict[str, Any] | None
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How a model is to be loaded."""

    dtype: torch.dtype
    device: torch.device
    device_map: DeviceMap
    tokenizer: PreTrainedTokenizerBase | None
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """What was read, before it is wrapped and certified."""

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(
    source: str | Path | nn.Module = DEFAULT,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
    device: str | None = None,
    device_map: DeviceMap = None,
    dtype: str | None = None,
    base: str | Path | None = None,
    merge: bool = False,
    progress: Progress = lambda step: None,
) -> Model:
    """Load a model and certify it.

    source: a specimen (`smollm2-135m-instruct`, the default, fetched on first use), a local folder, a hub id
    (`HuggingFaceTB/SmolLM2-135M`), a `.gguf` file (dequantised), a PEFT adapter (a folder or hub id with an
    adapter_config.json), or an already loaded Hugging Face or PEFT model with its `tokenizer=`.
    tokenizer: instead of the model's own. revision: of the hub id. dtype: float32 (the default), bfloat16 or float16.
    device: where to put it (cpu by default); or device_map: where transformers puts each part.
    base: the model that an adapter is for, where its configuration names none or another; merge: merge the adapter into
    the weights, where otherwise it can be switched off. progress: called with one line per step.

    Raises UsageError for what makes no sense, UnsupportedModel for a family without an adapter or a file that would not be
    read faithfully, BrokenModel for damaged files and adapters of another base, CertificateFailed.
    """
    if not isinstance(source, str | Path):
        if (revision, device, device_map, dtype, base, merge) != (None, None, None, None, None, False):
            raise UsageError(
                "Of the options only tokenizer= is for a loaded model, and this one is: move, cast or merge it yourself."
            )
        return Model(peft.unwrap(source), tokenizer)
    way = _way(device, device_map, dtype, tokenizer, progress)
    adapter = _adapter(source, revision)
    if adapter is None and (base is not None or merge):
        raise UsageError(f"base= and merge= are for PEFT adapters; {source} has no {peft.CONFIG}.")
    loaded = _open(source, revision, way) if adapter is None else _open_adapter(adapter, base, merge, way)
    if device_map is None:
        nn.Module.to(loaded.hf, way.device)
    name = Path(source).resolve().name if Path(source).exists() else str(source)
    return Model(loaded.hf, loaded.tokenizer, name=name)


def _way(
    device: str | None,
    device_map: DeviceMap,
    dtype: str | None,
    tokenizer: PreTrainedTokenizerBase | None,
    progress: Progress,
) -> _Way:
    dtype = dtype or "float32"
    if dtype not in DTYPES:
        raise UsageError(f"dtype={dtype!r}: one of {', '.join(DTYPES)}.")
    if device is not None and device_map is not None:
        raise UsageError(f"device={device!r} and device_map={device_map!r} both say where the model goes: give one of them.")
    try:
        place = torch.device(device or "cpu")
    except RuntimeError as error:
        raise UsageError(f"device={device!r} is no device of PyTorch; for instance cpu, cuda, cuda:1.") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device={device!r}, but PyTorch sees no CUDA device here. Use device='cpu'.")
    return _Way(dtype=DTYPES[dtype], device=place, device_map=device_map, tokenizer=tokenizer, progress=progress)


def _adapter(source: str | Path, revision: str | None) -> peft.PeftAdapter | None:
    """The PEFT adapter that a folder or hub id is; specimens, files and models are none."""
    if str(source) in SPECIMENS or Path(source).suffix == ".gguf":
        return None
    if Path(source).is_dir():
        return peft.find_adapter(source)
    _refuse_nowhere(source)
    try:
        PreTrainedConfig.get_config_dict(str(source), revision=revision)
    except OSError as error:  # no config.json on the hub, or no hub
        adapter = peft.find_adapter(source, revision=revision)
        if adapter is None:
            raise _unreadable(source, error) from error
        return adapter
    return None


def _open(source: str | Path, revision: str | None, way: _Way) -> _Loaded:
    where = fetch(str(source), progress=way.progress) if str(source) in SPECIMENS else Path(source)
    way.progress(f"Loading {source}")
    if where.suffix == ".gguf":
        return _open_gguf(where, way)
    if where.is_dir():
        if not (where / "config.json").is_file():
            raise UsageError(f"{where} has no config.json: give the folder that save_pretrained wrote.")
        return _read(str(where), revision, way)
    return _read(str(source), revision, way)


def _open_gguf(file: Path, way: _Way) -> _Loaded:
    if not file.is_file():
        raise UsageError(f"There is no file {file}.")
    hf = read_gguf(file, dtype=way.dtype, device_map=way.device_map)
    return _Loaded(hf=hf, tokenizer=way.tokenizer or read_gguf_tokenizer(file))


def _open_adapter(adapter: peft.PeftAdapter, base: str | Path | None, merge: bool, way: _Way) -> _Loaded:
    """Load the base of an adapter, then put the adapter on it."""
    peft.require_peft()
    chosen = base or adapter.base
    if chosen is None:
        raise BrokenModel(f"The adapter {adapter.where} names no base in its {peft.CONFIG}: give base=.")
    try:
        revision = adapter.base_revision if base is None else None
        if _adapter(chosen, revision) is not None:
            raise UnsupportedModel("it is an adapter itself: merge it into its base and save that first")
        loaded = _open(chosen, revision, way)
    except UsageError as error:
        if base is not None:
            raise
        raise BrokenModel(
            f"{adapter.where} is an adapter for {chosen}, which cannot be loaded: {error} Or give base=."
        ) from error
    except InnerworksError as error:
        raise type(error)(f"{adapter.where} is an adapter for {chosen}, which cannot be loaded: {error}") from error
    way.progress(f"Putting the adapter {adapter.where} on it")
    hf = peft.attach(loaded.hf, adapter, merge=merge)
    return _Loaded(hf=hf, tokenizer=_tokenizer_beside(adapter, way) or loaded.tokenizer)


def _tokenizer_beside(adapter: peft.PeftAdapter, way: _Way) -> PreTrainedTokenizerBase | None:
    """The tokenizer saved with a local adapter, which may know tokens that the base's does not."""
    folder = Path(adapter.where)
    if way.tokenizer is not None or not (folder / "tokenizer_config.json").is_file():
        return way.tokenizer
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever transformers raises: one message, the cause attached
        raise _unreadable(f"The tokenizer of the adapter {folder}", error) from error


def _refuse_nowhere(source: str | Path) -> None:
    """Refuse what is no folder and can be no hub id."""
    text = str(source)
    if text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise UsageError(
            f"There is no folder {source}. Give a folder, a .gguf file, a specimen ({', '.join(SPECIMENS)}) or "
            "a hub id (owner/name)."
        )
    if "/" not in text and near_misses(text, SPECIMENS):
        raise UsageError(f"No specimen is called {text!r}.{near_misses(text, SPECIMENS)}")


def _read(where: str, revision: str | None, way: _Way) -> _Loaded:
    """Read a folder or hub id through transformers, with one clear error where that fails."""
    local = Path(where) / "config.json"
    if local.is_file():
        refuse_unknown_family(str(peft.read_json_object(local).get("model_type")))  # before transformers builds anything
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(where, **options)
            refuse_unknown_family(config.model_type)
            how = {"dtype": way.dtype, "device_map": way.device_map, "output_loading_info": True}
            how["attn_implementation"] = FAMILIES[config.model_type].implementation
            loaded: Any = _class_for(config).from_pretrained(where, config=config, **options, **how)
            tokens = way.tokenizer or AutoTokenizer.from_pretrained(where, **options)
    except InnerworksError:
        raise
    except SafetensorError as error:
        raise BrokenModel(f"The weights of {where} are damaged ({error}). Copy or download them again.") from error
    except Exception as error:  # whatever transformers or the hub client raise: one message, the cause attached
        raise _unreadable(where, error) from error
    hf, report = loaded
    _refuse_misfit(where, report)
    if getattr(hf, "_hf_peft_config_loaded", False):  # transformers puts on what it finds beside a model
        raise UnsupportedModel(
            f"{where} holds a model and an adapter on it. Save the two apart, and load the adapter with base=."
        )
    return _Loaded(hf=hf, tokenizer=tokens)


def _class_for(config: Any) -> Any:
    """The class that the configuration names, where its family's adapter knows it; AutoModelForCausalLM elsewhere.

    A multimodal wrapper (Gemma3ForConditionalGeneration) is no causal LM to transformers, though its text model is one.
    """
    for name in getattr(config, "architectures", None) or ():
        if name in FAMILIES[config.model_type].classes:
            return getattr(transformers, name)
    return AutoModelForCausalLM


def _refuse_misfit(where: str, report: Mapping[str, Any]) -> None:
    """Refuse files that lack weights of the model, or hold weights of another one."""
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise BrokenModel(
            f"{where} lacks {len(missing)} weights ({', '.join(missing[:3])}, ...), which would have been random numbers."
        )
    homeless = sorted(key for key in report["unexpected_keys"] if re.search(r"\.\d+\.(?!.*masked_bias)", key))
    if homeless:  # in a block: without them another model would be studied. Elsewhere (a value head) they change nothing.
        raise BrokenModel(
            f"{where} holds {len(homeless)} weights that a model of its config.json has no place for ({', '.join(homeless[:3])}, "
            "...). Its config.json belongs to another model."
        )


def _unreadable(what: object, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or ["no message"])[0]
    return ModelError(f"{what} could not be loaded: {type(error).__name__}: {reason}")
