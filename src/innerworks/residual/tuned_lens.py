"""The tuned lens: an affine map per layer that turns its stream into what the model's own last step can read.

1. `translated = stream + change[layer] @ stream + shift[layer]`, in float32; then the final norm and the unembedding, as in the
   logit lens. With change and shift at zero it *is* the logit lens: the identity is where training begins.
2. A layer whose map does not improve on the logit lens keeps the identity (`tuning.py` says how that is decided).
3. On disk it is one safetensors file, whose header says in JSON what it was trained on and how far both lenses are from the
   model's last word on text that neither training nor any choice has seen. It is opened only for the model it belongs to.

Belrose et al. 2023, arXiv:2303.08112. What it does not do: show that the model itself uses what the map reads. A map is trained
to predict the end, and may find out what later layers would have computed; ablate to see what they need.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from innerworks.errors import AtlasError, UsageError
from innerworks.model.digest import weights_digest
from innerworks.model.model import Model

SCHEMA = 1
HEADER = "innerworks"  # the key of the safetensors header


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How far two lenses are at one layer from what the model says in the end, on documents kept for this alone."""

    site: str
    tuned: bool  # or left at the identity
    logit_lens: float  # KL(final || lens), nats, the mean over documents
    tuned_lens: float
    gain: float  # by how much the tuned lens is closer, nats: never below zero but by chance
    gain_low: float  # its 95 % interval over documents
    gain_high: float
    n: int  # documents


@dataclass(frozen=True, kw_only=True)
class TunedLens:
    """An affine map per layer: `lens(layer, stream)` is the stream to be read in its place."""

    model: str
    weights: str  # digest of the model it belongs to
    kind: str  # the stream it translates: resid_post, resid_pre or resid_mid
    change: Float[Tensor, "layer d_model d_model"] = field(repr=False)
    shift: Float[Tensor, "layer d_model"] = field(repr=False)
    held_out: tuple[HeldOut, ...] = field(repr=False)
    trained_on: Mapping[str, Any]  # corpus, its digest, documents, positions, steps, seed, version

    def __call__(self, layer: int, stream: Float[Tensor, "*where d_model"]) -> Float[Tensor, "*where d_model"]:
        """The stream of a layer as the last step can read it."""
        wide, device = stream.float(), stream.device
        return (wide + wide @ self.change[layer].T.to(device) + self.shift[layer].to(device)).to(stream.dtype)

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all, and return its path. Raises AtlasError where that cannot be."""
        path = Path(path)
        about = {name: getattr(self, name) for name in ("model", "weights", "kind")} | {"trained_on": dict(self.trained_on)}
        about |= {"schema": SCHEMA, "held_out": [asdict(one) for one in self.held_out]}
        tensors = {"change": self.change.contiguous(), "shift": self.shift.contiguous()}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(save(tensors, metadata={HEADER: json.dumps(about)}))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise AtlasError(f"{path} cannot be written: {error.strerror}. Give another place for it.") from error
        return path

    @classmethod
    def open(cls, path: str | Path, model: Model) -> "TunedLens":
        """Read a file and check that it belongs to this model, weight by weight."""
        path = Path(path)
        about, tensors = _read(path)
        if about["weights"] != weights_digest(model.hf):
            raise UsageError(
                f"{path} was trained on {about['model']} with other weights than those of {model.name} here. "
                "Train one for this model: innerworks lens --train FILE."
            )
        return cls(
            **{name: about[name] for name in ("model", "weights", "kind", "trained_on")},
            held_out=tuple(HeldOut(**row) for row in about["held_out"]),
            change=tensors["change"],
            shift=tensors["shift"],
        )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file; raises AtlasError for what is no tuned lens."""
    if not path.is_file():
        raise AtlasError(f"There is no file {path}. Train a lens with: innerworks lens --train {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in ("change", "shift")}
        schema = about["schema"]
        assert schema != SCHEMA or {"model", "weights", "kind", "trained_on", "held_out"} <= about.keys()
    except Exception as error:  # safetensors raises a type of its own
        raise AtlasError(f"{path} is no tuned lens, or damaged ({type(error).__name__}: {error}). Train it again.") from error
    if schema != SCHEMA:
        raise AtlasError(f"{path} has schema {schema}; this version of innerworks reads {SCHEMA}. Train it again.")
    return about, tensors
