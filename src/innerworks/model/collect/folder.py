"""What lies in the folder: the names of its files, the index that says what they hold, and which of them are ours.

1. `index.json` holds the settings (everything that decides what is stored), the sites and the shards, and whether it is finished.
2. Every shard carries a label, a digest of the settings with its number: one of another collection is not taken for ours.
3. A folder is taken up again only with the same settings; files that no collection wrote are never deleted.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers

import innerworks
from innerworks.errors import AtlasError
from innerworks.model.collect.recipe import Recipe
from innerworks.model.collect.shards import Shard
from innerworks.model.digest import tokenizer_digest, weights_digest
from innerworks.model.model import Model
from innerworks.text import Corpus

SCHEMA = 1
INDEX, DOCUMENTS = "index.json", "documents.json"
MAKE_AGAIN = "Call collect again with the same arguments: it makes what is missing or damaged anew."


def settings_of(model: Model, corpus: Corpus, recipe: Recipe) -> dict[str, Any]:
    """Everything that decides what the shards hold: collections with the same settings are the same."""
    return {
        "model": model.name,
        "weights": weights_digest(model.hf),
        "tokenizer": tokenizer_digest(model.tokenizer),
        "computed_in": str(next(model.hf.parameters()).dtype).removeprefix("torch."),
        "corpus": corpus.digest,
        "sites": list(recipe.shapes),
        "dtype": recipe.dtype,
        "window": recipe.window,
        "positions": recipe.positions,
        "skip_first": recipe.skip_first,
        "shard_tokens": recipe.shard_tokens,
        "batch_tokens": recipe.batch_tokens,
        "innerworks": innerworks.__version__,
    }


def index_of(
    model: Model, corpus: Corpus, recipe: Recipe, settings: Mapping[str, Any], shards: Sequence[Shard]
) -> dict[str, Any]:
    """What `index.json` says, but for whether the collection is finished."""
    certificate = model.certificate
    return {
        "schema": SCHEMA,
        "settings": settings,
        "sites": {name: {"shape": list(shape), "axes": list(recipe.axes[name])} for name, shape in recipe.shapes.items()},
        "opening": list(recipe.opening),
        "rows": sum(shard.rows for shard in shards),
        "shards": [{"file": shard.file, "rows": shard.rows} for shard in shards],
        "corpus": {"name": corpus.name, "documents": len(corpus.documents), "notes": list(corpus.notes)},
        "certificate": certificate.as_dict() if certificate is not None else None,
        "versions": {one.__name__: str(one.__version__) for one in (innerworks, torch, transformers, safetensors)},
    }


def label(shard: Shard, settings: Mapping[str, Any]) -> str:
    """What a file says of itself, so that a shard of another collection is not taken for one of this."""
    digest = hashlib.sha256(as_json(settings)).hexdigest()
    return json.dumps({"settings": digest, "shard": shard.number, "rows": shard.rows}, sort_keys=True)


def is_there(path: Path, shard: Shard, settings: Mapping[str, Any]) -> bool:
    """Is the shard's file there, whole, and of this collection? What is damaged is made again."""
    try:
        with safetensors.safe_open(path / shard.file, framework="pt") as file:
            return (file.metadata() or {}).get("innerworks") == label(shard, settings)
    except Exception:  # safetensors raises a type of its own
        return False


def taken(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The index of the collection in a folder, which must be of the same; None where the folder is free."""
    if not path.exists():
        return None
    if not path.is_dir() or not (path / INDEX).is_file():
        if not path.is_dir() or any(not is_temporary(one.name) for one in path.iterdir()):
            raise AtlasError(f"{path} exists and is no collection of activations: it is left alone. Give another folder.")
        return None
    index = read_index(path)
    before, now = index["settings"], json.loads(as_json(settings))
    other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if other:
        says = "; ".join(f"{key}: {short(before.get(key))} there, {short(now.get(key))} now" for key in other)
        raise AtlasError(
            f"{path} holds a collection of something else ({says}). "
            "Give another folder, ask for the same, or replace it with force."
        )
    return index


def clear(path: Path, *, everything: bool) -> None:
    """Delete what killed runs left half written, and with `everything` the collection; never what is not ours."""
    foreign = sorted(one.name for one in path.iterdir() if not (is_ours(one.name) or is_temporary(one.name)))
    if foreign and everything:
        raise AtlasError(f"{path} also holds what is no collection ({', '.join(foreign[:3])}): it is left alone. Move that away.")
    ours = sorted((one for one in path.iterdir() if one.name not in foreign), key=lambda one: one.name != INDEX)
    for one in ours:
        if everything or is_temporary(one.name):
            one.unlink()


def is_ours(name: str) -> bool:
    """Is this the name of a file of a collection?"""
    return name in (INDEX, DOCUMENTS) or (name.startswith("shard-") and name.endswith(".safetensors"))


def is_temporary(name: str) -> bool:
    """Is this what a killed run leaves, half written?"""
    return name.startswith(".") and is_ours(name[1:].rpartition(".")[0])


def read_index(path: Path) -> dict[str, Any]:
    """The index of a folder; raises AtlasError where it is none."""
    try:
        index: Any = json.loads((path / INDEX).read_text(encoding="utf-8"))
        assert isinstance(index, dict)
        schema = index["schema"]
        assert schema != SCHEMA or {"settings", "sites", "rows", "shards", "finished"} <= index.keys()
    except (OSError, ValueError, AssertionError, KeyError) as error:
        raise AtlasError(
            f"{path / INDEX} is damaged ({error or 'it holds something else'}). Collect again, with force."
        ) from error
    if schema != SCHEMA:
        raise AtlasError(f"{path} has schema {schema}; this version of innerworks reads {SCHEMA}. Collect again, with force.")
    return index


def as_json(data: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file."""
    return json.dumps(data, indent=1, ensure_ascii=False).encode()


def short(value: object) -> str:
    """A setting in a message: few sites of many, and the beginning of a digest."""
    if isinstance(value, list):
        return f"{', '.join(map(str, value[:4]))}{f' and {len(value) - 4} more' if len(value) > 4 else ''}"
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)


def size_in_words(count: int) -> str:
    """A number of bytes in a message."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"
