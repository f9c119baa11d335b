"""One small file of data per Hugging Face family. To add a family, write such a file and list it here."""

from transformers import PreTrainedModel

from innerworks.errors import UnsupportedModel, near_misses
from innerworks.model.adapters.adapter import Adapter
from innerworks.model.adapters.gpt2 import GPT2
from innerworks.model.adapters.llama import LLAMA

__all__ = ["FAMILIES", "Adapter", "adapter_for"]

FAMILIES: dict[str, Adapter] = {adapter.family: adapter for adapter in (GPT2, LLAMA)}


def adapter_for(hf: PreTrainedModel) -> Adapter:
    """Find the adapter of a loaded model, or refuse by name: the family, the class, or an option of the configuration."""
    family, name = hf.config.model_type, type(hf).__name__
    refuse_unknown_family(family)
    adapter = FAMILIES[family]
    if name not in adapter.classes:
        raise UnsupportedModel(
            f"{name} is of the family {family!r} but no causal LM that we know; load one of: {', '.join(adapter.classes)}."
        )
    for option, (handled, why) in adapter.refused.items():
        value = getattr(hf.config, option, handled)
        if value != handled:
            raise UnsupportedModel(f"{name} has {option}={value!r}: {why}. Only {option}={handled!r} is handled.")
    return adapter


def refuse_unknown_family(family: str) -> None:
    """Refuse by name a family that has no adapter; known before any weight is read."""
    if family not in FAMILIES:
        raise UnsupportedModel(
            f"No adapter for the family {family!r}. Known families: {', '.join(FAMILIES)}.{near_misses(family, FAMILIES)} "
            "To add one, write innerworks/model/adapters/<family>.py (about 30 lines of data) and list it in FAMILIES."
        )
