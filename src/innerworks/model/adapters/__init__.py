"""One small file of data per Hugging Face family. To add a family, write such a file and list it here (docs/families.md)."""

from transformers import PreTrainedModel

from innerworks.errors import UnsupportedModel, near_misses
from innerworks.model.adapters.adapter import CAUSAL_ONLY, Adapter, causal_families
from innerworks.model.adapters.bloom import BLOOM
from innerworks.model.adapters.falcon import FALCON
from innerworks.model.adapters.gemma import GEMMA
from innerworks.model.adapters.gemma2 import GEMMA2
from innerworks.model.adapters.gemma3 import GEMMA3, GEMMA3_TEXT
from innerworks.model.adapters.gpt2 import GPT2
from innerworks.model.adapters.gpt_neo import GPT_NEO
from innerworks.model.adapters.gpt_neox import GPT_NEOX
from innerworks.model.adapters.gptj import GPTJ
from innerworks.model.adapters.llama import LLAMA
from innerworks.model.adapters.mistral import MISTRAL
from innerworks.model.adapters.mixtral import MIXTRAL
from innerworks.model.adapters.olmo2 import OLMO2
from innerworks.model.adapters.opt import OPT
from innerworks.model.adapters.phi import PHI
from innerworks.model.adapters.phi3 import PHI3
from innerworks.model.adapters.qwen2 import QWEN2
from innerworks.model.adapters.qwen3 import QWEN3
from innerworks.model.adapters.qwen3_moe import QWEN3_MOE
from innerworks.model.adapters.smollm3 import SMOLLM3
from innerworks.model.adapters.stablelm import STABLELM
from innerworks.model.adapters.starcoder2 import STARCODER2

__all__ = ["FAMILIES", "Adapter", "adapter_for"]

_KNOWN = (
    *(GPT2, GPT_NEOX, OPT, LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3_TEXT, GEMMA3, PHI, PHI3, OLMO2, STABLELM),
    *(STARCODER2, SMOLLM3, MIXTRAL, QWEN3_MOE, GPTJ, GPT_NEO, BLOOM, FALCON),
)
FAMILIES: dict[str, Adapter] = {adapter.family: adapter for adapter in _KNOWN}


def adapter_for(hf: PreTrainedModel) -> Adapter:
    """Find the adapter of a loaded model, or refuse by name: the family, the class, or an option of the configuration."""
    family, name = hf.config.model_type, type(hf).__name__
    refuse_unknown_family(family)
    adapter = FAMILIES[family]
    if not adapter.fits(hf):
        raise UnsupportedModel(
            f"{name} is of the family {family!r} but no causal LM that we know; load one of: {', '.join(adapter.classes)}."
        )
    config = hf.get_submodule(adapter.decoder).config
    for option, (handled, why) in {**CAUSAL_ONLY, **adapter.refused}.items():
        value = getattr(config, option, handled)
        if value is not None and value != handled:
            raise UnsupportedModel(f"{name} has {option}={value!r}: {why}. Only {option}={handled!r} is handled.")
    return adapter


def refuse_unknown_family(family: str) -> None:
    """Refuse by name a family that has no adapter; known before any weight is read."""
    if family in FAMILIES:
        return
    causal = "" if family in causal_families() else " transformers knows no causal LM of that name, either."
    raise UnsupportedModel(
        f"No adapter for the family {family!r}.{near_misses(family, FAMILIES)}{causal} Known families: {', '.join(FAMILIES)}. "
        "To add one, write innerworks/model/adapters/<family>.py (about 30 lines of data) and list it in FAMILIES."
    )
