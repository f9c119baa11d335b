"""What an adapter says about one Hugging Face family: where things are, and which options it cannot handle."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Where the parts of a family lie. Paths of modules are dotted; those inside a block are relative to it."""

    family: str  # `config.model_type`
    classes: tuple[str, ...]  # causal LM classes that are laid out like this
    blocks: str  # the list of blocks
    final_norm: str
    unembedding: str
    attention: str  # the attention module; its first output is added to the stream
    attention_out: str  # the output projection: its input is z
    mlp: str  # the feed-forward module; its output is added to the stream
    mlp_norm: str  # the norm that reads the stream between the two
    mlp_out: str  # the down projection: its input is the neurons
    kv_heads: str | None = None  # config field, when keys and values are shared among heads
    refused: Mapping[str, tuple[object, str]] = field(default_factory=dict)  # option -> (value handled, why not others)
