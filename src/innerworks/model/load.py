"""Load a model by whatever a person has: a specimen's name, a local folder, a hub id, or the model itself."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from innerworks.errors import BrokenModel, InnerworksError, ModelError, UnsupportedModel, UsageError, near_misses
from innerworks.model.adapters import refuse_unknown_family
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
        if (revision, device, dtype) != (None, "cpu", "float32"):
            raise UsageError("revision=, device= and dtype= are for models to be loaded; this one is: move or cast it yourself.")
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
    hf, tokens = _read(str(where), revision, DTYPES[dtype], tokenizer)
    torch.nn.Module.to(hf, place)
    name = Path(source).resolve().name if Path(source).is_dir() else str(source)
    return Model(hf, tokens, name=name)


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
    if str(source).startswith((".", "/", "~")) or str(source).count("/") > 1:
        raise UsageError(
            f"There is no folder {source}. Give a folder, a specimen ({', '.join(SPECIMENS)}) or a hub id (owner/name)."
        )
    if "/" not in str(source) and near_misses(str(source), SPECIMENS):
        raise UsageError(f"No specimen is called {source!r}.{near_misses(str(source), SPECIMENS)}")
    return source


def _read(
    where: str, revision: str | None, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    _check_family(where)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(where, **options)
            refuse_unknown_family(config.model_type)
            options |= {"config": config, "dtype": dtype, "attn_implementation": "sdpa", "output_loading_info": True}
            loaded: Any = AutoModelForCausalLM.from_pretrained(where, **options)
            tokens = tokenizer or AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=False)
    except InnerworksError:
        raise
    except SafetensorError as error:
        raise BrokenModel(f"The weights of {where} are damaged ({error}). Copy or download them again.") from error
    except Exception as error:  # whatever transformers or the hub client raise: one message, the cause attached
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(f"{where} could not be loaded: {type(error).__name__}: {reason}") from error
    hf, report = loaded
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
    return hf, tokens


def _check_family(where: str) -> None:
    """Refuse an unknown family before its weights are read."""
    config = Path(where) / "config.json"
    if not config.is_file():
        return
    try:
        content = json.loads(config.read_text())
    except ValueError as error:
        raise BrokenModel(f"{config} is no JSON: {error}.") from error
    if not isinstance(content, dict):
        raise BrokenModel(f"{config} is no JSON object.")
    refuse_unknown_family(str(content.get("model_type")))
