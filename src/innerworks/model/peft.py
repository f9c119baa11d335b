"""PEFT adapters: put a LoRA on its base so that it can be switched off, or merge it; and say which weight is really applied.

1. `find_adapter` reads `adapter_config.json`: which base the adapter is for.
2. `attach` lets the `peft` package put the adapter's layers into the base, and checks what peft only warns of: every weight
   of the adapter found its place and none is missing; with the adapter off, the logits are the base's, bit for bit;
   merged, they are those with the adapter on.
3. `adapter_off` switches it off for a while. `effective_weight` is the weight that a module applies right now.

A module that carries a LoRA shows its *base's* weight as `.weight`: whoever analyses weights must ask `effective_weight`.
What it does not do: adapters that are no change of a weight (prompt and prefix tuning), or whose change depends on the text.
"""

import json
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from innerworks.errors import BrokenModel, ModelError, UnsupportedModel, UsageError
from innerworks.model.anatomy import every_module
from innerworks.model.quiet import quiet

if TYPE_CHECKING:
    from innerworks.model.model import Model

CONFIG, WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
NOT_SWITCHABLE = {  # options of a LoRA that are more than one change of one weight
    "target_parameters": "it changes parameters that are no module's weight",
    "trainable_token_indices": "it replaces rows of the embedding",
    "alora_invocation_tokens": "it acts only after certain tokens",
    "layer_replication": "it repeats layers",
    "lora_bias": "it changes biases too",
}


@dataclass(frozen=True, kw_only=True)
class PeftAdapter:
    """An adapter on disk or on the hub, and the model it was made for."""

    where: str  # a folder or a hub id
    revision: str | None
    base: str | None  # what its configuration names
    base_revision: str | None


def find_adapter(source: str | Path, *, revision: str | None = None) -> PeftAdapter | None:
    """Is this folder or hub id a PEFT adapter? None where it is not. Raises BrokenModel for a damaged configuration."""
    folder = Path(source)
    path = find_adapter_config_file(str(folder if folder.is_dir() else source), revision=revision)
    if path is None:
        return None
    config = read_json_object(Path(path))
    if folder.is_dir() and not any((folder / name).is_file() for name in WEIGHTS):
        raise BrokenModel(f"{folder} has an {CONFIG} but no {WEIGHTS[0]}: copy the adapter again.")
    if folder.is_dir() and any(folder.glob("model*.safetensors")):
        raise UsageError(f"{folder} holds a whole model and an adapter. Move the adapter to a folder of its own and give base=.")
    return PeftAdapter(
        where=str(source),
        revision=revision,
        base=config.get("base_model_name_or_path") or None,
        base_revision=config.get("revision") or None,
    )


def read_json_object(path: Path) -> Mapping[str, Any]:
    """Read a configuration; raise BrokenModel where it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BrokenModel(f"{path} is no JSON: {error}.") from error
    if not isinstance(content, dict):
        raise BrokenModel(f"{path} is no JSON object.")
    return content


def attach(hf: PreTrainedModel, adapter: PeftAdapter, *, merge: bool = False) -> PreTrainedModel:
    """Put an adapter on its base, in place: as layers that `adapter_off` switches, or merged into the weights.

    Raises UsageError where peft is not installed, BrokenModel for an adapter that is damaged or of another base,
    UnsupportedModel for one that is no change of weights, or that cannot be switched off (load it with merge=True).
    """
    peft = require_peft()
    plain = _probe(hf)
    with _told_as_broken(adapter, hf), warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # what peft warns of here is checked below
        config = peft.PeftConfig.from_pretrained(adapter.where, revision=adapter.revision)
        _refuse_prompts(config)
        config.inference_mode = True
        wrapped = peft.PeftModel(hf, config, autocast_adapter_dtype=False)
        _load_weights(wrapped, adapter)
        on = _probe(hf)
        if merge:
            hf = wrapped.merge_and_unload(safe_merge=True)
    if merge:
        _refuse_other_logits(hf, on, adapter.where)
    else:
        refuse_unswitchable(hf, config)
        with adapter_off(hf):
            if not torch.equal(_probe(hf), plain):
                raise UnsupportedModel(
                    f"{adapter.where} changes its base in place, so it cannot be switched off. Load it with merge=True."
                )
    return hf


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The Hugging Face model inside an already loaded `peft.PeftModel`, its adapter on; any other model is returned as it is.

    Raises UnsupportedModel where the inner model alone would not compute what the PeftModel computes.
    """
    peft = sys.modules.get("peft")  # not imported: then nothing can be a PeftModel
    if peft is None or not isinstance(model, peft.PeftModel | peft.PeftMixedModel):
        if not isinstance(model, PreTrainedModel):
            raise UsageError(f"A {type(model).__name__} is no Hugging Face model: give a PreTrainedModel or a PeftModel.")
        return model
    wrapped: Any = model
    for config in wrapped.peft_config.values():
        _refuse_prompts(config)
    hf: PreTrainedModel = wrapped.base_model.model
    for config in wrapped.peft_config.values():
        refuse_unswitchable(hf, config)
    return hf


@contextmanager
def adapter_off(model: "Model | PreTrainedModel") -> Iterator[None]:
    """What would the base do? Inside, every adapter of the model is off; afterwards each is as it was, also after an error.

    It is off for every thread: others that edit the model or switch its adapter wait, but a plain run of theirs would be the
    base's. Raises UsageError for a model without an adapter.
    """
    hf: Any = getattr(model, "hf", model)
    lock: threading.RLock | nullcontext[None] = getattr(model, "lock", nullcontext())  # pyright: ignore[reportInvalidTypeForm]
    layers = adapter_layers(hf)
    if not layers:
        raise UsageError(f"{type(hf).__name__} has no adapter to switch off (one that was merged is part of its weights).")
    if any(layer.merged_adapters for layer in layers):
        raise UsageError("The adapter is merged into the weights. Call unmerge_adapter() on the PeftModel, then load it again.")
    with lock:
        disabled = [layer.disable_adapters for layer in layers]
        trainable = [(weight, weight.requires_grad) for layer in layers for weight in layer.parameters()]
        try:
            for layer in layers:
                layer.enable_adapters(False)
            yield
        finally:
            for layer, was in zip(layers, disabled, strict=True):
                layer.enable_adapters(not was)
            for weight, was in trainable:  # peft makes adapters trainable when it enables them
                weight.requires_grad_(was)


def adapter_layers(hf: nn.Module) -> list[Any]:
    """Every module of the model that peft put there: LoRA layers, and copies of modules that were trained whole."""
    return [] if "peft" not in sys.modules else [module for module in every_module(hf) if _is_adapted(module)]


def plain_module(module: nn.Module) -> nn.Module:
    """The module as the model's own code made it (`nn.Linear`, `Conv1D`, `nn.Embedding`), under whatever adapter it carries."""
    if not _is_adapted(module):
        return module
    adapted: Any = module
    return adapted.get_base_layer() if hasattr(adapted, "get_base_layer") else adapted.original_module


def effective_weight(module: nn.Module) -> Tensor:
    """Which weight does this module apply right now: its own, plus what its active adapters add?

    `base + sum_active scaling * B @ A`; nothing is added by an adapter that is off, or already merged. DoRA scales the rows.

    Returns: laid out as the plain module's own weight: `[out, in]` for `nn.Linear`, `[in, out]` for transformers' `Conv1D`,
    `[vocab, d_model]` for an embedding. A module without an adapter gives its parameter itself, not a copy.
    Raises UnsupportedModel for an adapter whose effect is not one weight matrix.
    """
    adapted: Any = module
    if not _is_adapted(module):
        return adapted.weight
    _refuse_no_weight(module)
    if _is_copy(module):
        return adapted.weight  # peft's wrapper gives that of the copy, or of the original while off
    weight: Tensor = adapted.get_base_layer().weight
    if adapted.merged and adapted.disable_adapters:
        raise UsageError("An adapter is off and merged into the weights at once. Call unmerge_adapter() on the PeftModel first.")
    if adapted.merged or adapted.disable_adapters:
        return weight
    for name in adapted.active_adapters:
        if name in adapted.scaling:
            weight = _changed(adapted, name, weight)
    return weight


def _changed(layer: Any, name: str, weight: Tensor) -> Tensor:
    changed = weight + layer.get_delta_weight(name).to(weight.dtype)
    if name not in layer.lora_variant:
        return changed
    magnitude = layer.lora_magnitude_vector[name].weight  # DoRA: each output's row keeps the length that was learned
    rows = changed.T if layer.fan_in_fan_out else changed
    rows = rows * (magnitude / rows.norm(dim=1))[:, None]
    return rows.T if layer.fan_in_fan_out else rows


def refuse_unswitchable(hf: PreTrainedModel, config: Any) -> None:
    """Raise UnsupportedModel for an adapter that is more than a change of weights, so that weights could not be read."""
    for option, why in NOT_SWITCHABLE.items():
        if getattr(config, option, None):
            raise UnsupportedModel(f"The adapter has {option}: {why}. Load it with merge=True, or merge_and_unload() it first.")
    for layer in adapter_layers(hf):
        _refuse_no_weight(layer)


def _refuse_no_weight(module: Any) -> None:
    from peft.tuners import lora

    if _is_copy(module):
        return
    kinds = {type(variant).__name__ for variant in getattr(module, "lora_variant", {}).values()} - {"DoraLinearVariant"}
    if type(module) in (lora.Linear, lora.Embedding) and not kinds:
        return
    what = ", ".join(sorted(kinds)) or f"{type(module).__module__.removeprefix('peft.tuners.')}.{type(module).__name__}"
    raise UnsupportedModel(
        f"An adapter layer of the kind {what} is not read as one weight (plain LoRA and DoRA are). "
        "Load it with merge=True, or merge_and_unload() it first."
    )


def _refuse_prompts(config: Any) -> None:
    if config.is_prompt_learning or getattr(config, "is_adaption_prompt", False):
        raise UnsupportedModel(
            f"A {config.peft_type.value} adapter adds inputs of its own rather than changing weights: it is not supported. "
            "LoRA is; others that can be merged are with merge=True."
        )


def require_peft() -> ModuleType:
    """The `peft` package, or a UsageError that says how to get it."""
    try:
        import peft
    except ImportError as error:
        raise UsageError(f"This needs the package peft ({error}): pip install 'innerworks[peft]'.") from error
    return peft


def _load_weights(wrapped: Any, adapter: PeftAdapter) -> None:
    """Load an adapter's weights into its layers; raise BrokenModel where some are missing or have no place."""
    options = {"torch_device": str(wrapped.device), "autocast_adapter_dtype": False, "revision": adapter.revision}
    report = wrapped.load_adapter(adapter.where, "default", **options)
    for keys, fault in ((report.missing_keys, "lacks"), (report.unexpected_keys, "has no place in the base for")):
        if keys:
            raise BrokenModel(
                f"The adapter {adapter.where} {fault} {len(keys)} of its weights ({', '.join(sorted(keys)[:2])}, ...). It was "
                "made for another base, or is damaged: name its base with base=, or copy it again."
            )


@contextmanager
def _told_as_broken(adapter: PeftAdapter, hf: PreTrainedModel) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # whatever peft, safetensors or the hub client raise: one message, the cause attached
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
        raise BrokenModel(
            f"The adapter {adapter.where} cannot be put on this {type(hf).__name__}: {type(error).__name__}: "
            f"{' '.join(lines[:2])} It is damaged, or was made for another base: name its base with base=."
        ) from error


def _is_adapted(module: nn.Module) -> bool:
    if "peft" not in sys.modules:  # then there is no such module
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)


def _is_copy(module: nn.Module) -> bool:
    """Is it a module that was trained whole, in a copy beside the original?"""
    from peft.utils.other import ModulesToSaveWrapper

    return isinstance(module, ModulesToSaveWrapper)


def _probe(hf: PreTrainedModel) -> Tensor:
    """Logits of eight fixed tokens, to compare states of one model."""
    tokens = torch.arange(8, device=hf.device)[None] % hf.config.get_text_config().vocab_size
    with torch.no_grad():
        return hf.eval()(input_ids=tokens, use_cache=False).logits.float().nan_to_num()


def _refuse_other_logits(merged: PreTrainedModel, on: Tensor, where: str) -> None:
    allowed = 1e-3 if merged.dtype == torch.float32 else 0.05
    difference = float((_probe(merged) - on).norm() / on.norm().clamp_min(1e-12))
    if difference > allowed:
        raise UnsupportedModel(
            f"Merging {where} changes its logits by {difference:.2g} of their size (allowed {allowed}): it acts on one end of "
            "tied embeddings, or its change is no weight. Load it with merge=False."
        )
