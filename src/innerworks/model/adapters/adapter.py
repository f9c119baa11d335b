"""What an adapter says about one Hugging Face family: where things are, and which options it cannot handle."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

Path = str | tuple[str, ...] | None  # dotted path of a module; of several, the first that is there; None: the family has none


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Where the parts of a family lie. Paths inside a block are relative to it.

    The stream of a block is `resid_pre + attention_added + mlp_added = resid_post`: name the modules whose output is added,
    which is the post-norm in sandwich-norm families and the projection where the module adds the stream itself.
    """

    family: str  # `config.model_type`
    classes: tuple[str, ...]  # causal LM classes that are laid out like this

    # the model
    decoder: str = "model"  # from token ids to the stream after the final norm
    blocks: str = "model.layers"
    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    unembedding: str = "lm_head"
    embedding_then: Path = None  # what token embeddings pass before they enter the stream: a projection or a norm
    positions: Path = None  # learned embeddings of positions, which are added to those of tokens
    final_then: Path = None  # what the stream passes between final norm and unembedding: a projection

    # attention in a block
    attention: str = "self_attn"
    attention_norm: Path = "input_layernorm"  # reads the stream for attention
    attention_added: Path = "self_attn"
    attention_out: str = "self_attn.o_proj"  # the output projection: its input is z
    query: Path = "self_attn.q_proj"
    key: Path = "self_attn.k_proj"
    value: Path = "self_attn.v_proj"
    fused: Path = None  # one projection for q, k and v instead ...
    fused_order: Literal["blocks", "groups"] = "blocks"  # ... all q, all k, all v; or per kv head: its queries, key, value
    query_norm: Path = None  # QK-norm, where there is one
    rotary: Callable[[Any, int], bool] = lambda config, layer: True  # (config, layer): are q and k rotated by position?
    attention_code: Literal["registry", "own"] = "registry"  # own: transformers computes it in the family's own file
    implementation: Literal["sdpa", "eager"] = "sdpa"  # what to load it with
    score_softcap: str | None = None  # option of the configuration that caps the scores by tanh
    score_slopes: bool = False  # scores fall with distance, by a slope per head (ALiBi)

    # feed-forward in a block
    parallel: Callable[[Any], bool] = lambda config: False  # attention and feed-forward read the same stream
    mlp_norm: Path = "post_attention_layernorm"  # reads the stream for the feed-forward; None in blocks that share one norm
    mlp: Path = "mlp"  # reads what the norm returns, or the stream itself
    mlp_added: Path = "mlp"
    mlp_in: Path = "mlp.up_proj"
    mlp_gate: Path = "mlp.gate_proj"
    mlp_gate_in: Path = None  # gate and up in one projection, in this order
    mlp_out: Path = "mlp.down_proj"  # the down projection: its input is the neurons
    experts: Path = None  # a mixture of experts: the module that holds them all as 3-D parameters

    post_norms: bool = False  # attention_added and mlp_added are norms of what the sub-layer computed
    post_layer_norm: Callable[[Any], bool] = lambda config: False  # the stream itself is normed after each addition
    modified_in_place: tuple[str, ...] = ()  # kinds of activation that the family's code overwrites after they passed
    softcap: str | None = None  # option of the configuration that caps the logits by tanh
    refused: Mapping[str, tuple[object, str]] = field(default_factory=dict)  # option -> (value handled, why not others)

    @property
    def blocks_return_tuples(self) -> bool:
        """Families with attention code of their own return the stream and the probabilities."""
        return self.attention_code == "own"

    def fits(self, hf: PreTrainedModel) -> bool:
        """Is this class of model laid out like that?"""
        return type(hf).__name__ in self.classes


#: options that change what attention sees, in any family
CAUSAL_ONLY = {
    "is_causal": (True, "its mask lets queries see the future"),
    "use_bidirectional_attention": (False, "its mask lets queries see the future"),
}


def causal_families() -> tuple[str, ...]:
    """Every family that transformers has a causal LM for."""
    return tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
