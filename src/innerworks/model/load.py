"""Load a model by whatever a person has: a specimen's name, a local folder, a hub id, or the model itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from innerworks.errors import BrokenModel, ModelError, UnsupportedModel, UsageError, near_misses
from innerworks.model.adapters import FAMILIES
from innerworks.model.model import Model
from innerworks.model.quiet import quiet
from innerworks.model.specimen import DEFAULT, SPECIMENS, fetch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    source: str | Path | PreTrainedModel = DEFAULT,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    progress: Callable[[str], None] = lambda step: None,
) -> Model:
    """Load a model and certify it.

    source: a specimen (`smollm2-135m-instruct`, the default, fetched on first use), a local folder, a hub id
    (`HuggingFaceTB/SmolLM2-135M`), or an already loaded Hugging Face model with its `tokenizer=`.
    Raises UnsupportedModel for a family without an adapter, BrokenModel for damaged files, CertificateFailed.
    """
    if isinstance(source, PreTrainedModel):
        return Model(source, tokenizer)
    if dtype not in DTYPES:
        raise UsageError(f"dtype={dtype!r}: one of {', '.join(DTYPES)}.")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device={device!r} is no device of PyTorch; for instance cpu, cuda, cuda:1.") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device={device!r}, but PyTorch sees no CUDA device here. Use device='cpu'.")
    where = _where(source, progress)
    progress(f"Loading {source}")
    hf, tokens = _read(str(where), revision, DTYPES[dtype])
    torch.nn.Module.to(hf, place)
    name = Path(source).resolve().name if Path(source).is_dir() else str(source)
    return Model(hf, tokenizer or tokens, name=name)


def _where(source: str | Path, progress: Callable[[str], None]) -> str | Path:
    if str(source) in SPECIMENS:
        return fetch(str(source), progress=progress)
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"{folder} has no config.json: give the folder that save_pretrained wrote.")
        return folder
    if folder.suffix == ".gguf":
        raise UnsupportedModel("A .gguf file is not read yet: convert it to a folder with transformers' save_pretrained.")
    looks_local = str(source).startswith((".", "/", "~")) or str(source).count("/") != 1
    if looks_local:
        raise UsageError(
            f"{source} is no folder, and neither a specimen ({', '.join(SPECIMENS)}) nor a hub id (owner/name)."
            + near_misses(str(source), SPECIMENS)
        )
    return source


def _read(where: str, revision: str | None, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    _check_family(where)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(where, **options)
            options |= {"config": config, "dtype": dtype, "attn_implementation": "sdpa", "output_loading_info": True}
            loaded: Any = AutoModelForCausalLM.from_pretrained(where, **options)
            tokens = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=False)
    except Exception as error:  # whatever transformers, safetensors or the hub client raise: one message, the cause attached
        raise ModelError(f"{where} could not be loaded: {type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
    hf, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise BrokenModel(
            f"{where} lacks {len(missing)} weights ({', '.join(missing[:3])}, ...), which would have been random numbers."
        )
    return hf, tokens


def _check_family(where: str) -> None:
    """Refuse an unknown family before its weights are read."""
    config = Path(where) / "config.json"
    if not config.is_file():
        return
    try:
        family = json.loads(config.read_text()).get("model_type")
    except ValueError as error:
        raise BrokenModel(f"{config} is no JSON: {error}.") from error
    if family not in FAMILIES:
        raise UnsupportedModel(
            f"No adapter for the family {family!r}. Known families: {', '.join(FAMILIES)}.{near_misses(str(family), FAMILIES)}"
        )
