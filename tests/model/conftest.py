"""What the tests of the model chapter share: independent recordings of plain Hugging Face models."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import jaxtyping
import pytest
import torch

EVERYTHING = ["L*.resid_pre", "L*.resid_mid", "L*.resid_post", "L*.attn_out", "L*.mlp_out", "L*.z", "L*.neurons"]
ATTENTION = ["L*.q", "L*.k", "L*.v", "L*.pattern"]


@pytest.fixture(scope="session")
def recorded(tiny_model: Callable[[str], Any], tokens: torch.Tensor) -> Callable[..., Any]:
    """`recorded("llama")`: a run with every site recorded; `opened=False` leaves attention alone."""
    runs: dict[tuple[str, bool], Any] = {}

    def run(family: str, *, opened: bool = True) -> Any:
        if (family, opened) not in runs:
            runs[family, opened] = tiny_model(family).run(tokens, record=EVERYTHING + ATTENTION * opened)
        return runs[family, opened]

    return run


@pytest.fixture(scope="session")
def plain(tiny_hf: Callable[..., Any], tokens: torch.Tensor) -> Callable[[str], "Plain"]:
    """`plain("llama")`: the same weights in a Hugging Face model that innerworks never touched, seen by foreign hooks."""
    seen: dict[str, Plain] = {}

    def look(family: str) -> Plain:
        if family not in seen:
            seen[family] = Plain(tiny_hf(family), tokens)
        return seen[family]

    return look


@pytest.fixture
def unchecked() -> Any:
    """Switch the run-time type checks off, as they are for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def assert_untouched() -> Callable[[Any], Any]:
    """`with assert_untouched(model): ...`: afterwards the model is bit for bit what it was, without any hook."""
    return _untouched


@contextmanager
def _untouched(model: Any) -> Any:
    before = {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}
    flags = [(module, module.training) for module in model.hf.modules()]
    yield
    after = model.hf.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for module, training in flags:
        hooks = [module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks]
        hooks += [module._forward_hooks_with_kwargs, module._forward_pre_hooks_with_kwargs]
        assert not any(hooks) and "forward" not in vars(module) and module.training == training
    assert all(parameter.grad is None for parameter in model.hf.parameters())


class Plain:
    """What foreign hooks on the modules of a plain Hugging Face model see; nothing of innerworks is used.

    streams: after each block; q, k, v: `[layer, batch, seq, head, d_head]` per query head, rotated for llama.
    """

    def __init__(self, hf: Any, tokens: torch.Tensor) -> None:
        self.hf, self.tokens = hf, tokens
        config = hf.config
        self.heads, self.d_head = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        self.groups = self.heads // getattr(config, "num_key_value_heads", self.heads)
        self.seen: dict[str, Any] = {}
        handles = [module.register_forward_hook(self._see(name)) for name, module in hf.named_modules() if name]
        with torch.no_grad():
            out = hf(input_ids=tokens, output_hidden_states=True, use_cache=False)
        for handle in handles:
            handle.remove()
        self.logits, self.streams = out.logits, out.hidden_states  # the last one is after the final norm
        self.layers = config.num_hidden_layers
        self.is_gpt2 = config.model_type == "gpt2"
        self.block = "transformer.h" if self.is_gpt2 else "model.layers"
        self.attention, self.projection = ("attn", "attn.c_proj") if self.is_gpt2 else ("self_attn", "self_attn.o_proj")
        self.norm = "ln_2" if self.is_gpt2 else "post_attention_layernorm"
        self.down = "mlp.c_proj" if self.is_gpt2 else "mlp.down_proj"

    def _see(self, name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            self.seen[name] = (args[0] if args else None, output[0] if isinstance(output, tuple) else output)

        return hook

    def into(self, layer: int, module: str) -> torch.Tensor:
        """The input of a module of a block."""
        return self.seen[f"{self.block}.{layer}.{module}"][0]

    def out_of(self, layer: int, module: str) -> torch.Tensor:
        """The output of a module of a block."""
        return self.seen[f"{self.block}.{layer}.{module}"][1]

    def qkv(self, layer: int) -> dict[str, torch.Tensor]:
        """Queries, keys and values from the projections' outputs, one per query head, rotated where the family does."""
        if self.is_gpt2:
            parts = self.out_of(layer, "attn.c_attn").chunk(3, dim=-1)
        else:
            parts = [self.out_of(layer, f"self_attn.{name}_proj") for name in "qkv"]
        q, k, v = (part.unflatten(-1, (-1, self.d_head)) for part in parts)
        owner = torch.tensor([head // self.groups for head in range(self.heads)])  # which kv head each query head reads
        if not self.is_gpt2:
            q, k = self._rotated(q), self._rotated(k)
        return {"q": q, "k": k[:, :, owner], "v": v[:, :, owner]}

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        """RoPE by complex multiplication: element i and i + d/2 are one number, turned by position * theta^(-2i/d)."""
        half = self.d_head // 2
        theta = self.hf.config.rope_parameters["rope_theta"]
        speed = theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * speed
        number = torch.complex(x[..., :half].double(), x[..., half:].double())
        turned = number * torch.polar(torch.ones_like(angle), angle)[None, :, None]
        return torch.cat([turned.real, turned.imag], dim=-1).float()

    def pattern(self, layer: int) -> torch.Tensor:
        """Attention probabilities `[batch, head, seq, key]` from its own q and k."""
        made = self.qkv(layer)
        scale = self.d_head**-0.5
        if getattr(self.hf.config, "scale_attn_by_inverse_layer_idx", False):
            scale /= layer + 1
        scores = torch.einsum("bqhd,bkhd->bhqk", made["q"], made["k"]) * scale
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        return scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
