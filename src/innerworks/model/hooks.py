"""Hooks on a model's modules for the places of one call, and nothing else; they come off in a `finally`.

Where the stream, a sub-layer's output, z, the neurons and the scale of a norm pass is told by the family's adapter. A hook
does nothing for any other call: another thread may be running the same modules.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from innerworks.errors import UsageError
from innerworks.model.call import EVERY, INSIDE_ATTENTION, Call, Capture, current
from innerworks.model.norms import Norm, rescaled
from innerworks.sites import INPUTS

if TYPE_CHECKING:
    from innerworks.model.model import Model

CACHES = ("past_key_values", "layer_past")  # what families call the cache that their attention adds keys and values to


@contextmanager
def hooked(model: "Model", call: Call) -> Iterator[None]:
    """Put hooks for the places of a call on the model's modules, and take every one off again."""
    handles: list[RemovableHandle] = []
    try:
        for kind, layer in call.places:
            if kind == "pattern" and model.adapter.attention_code == "own":
                handles.append(_pattern(model, call, layer))
            elif kind.endswith("norm_scale"):
                handles.append(_norm_scale(model, call, kind, layer))
            elif kind not in (*INSIDE_ATTENTION, *INPUTS, "expert_neurons"):
                handles.append(_activation(model, call, kind, layer))
        for layer in {layer: None for kind, layer in call.places if kind in INPUTS}:
            handles += _inputs(model, call, layer)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _activation(model: "Model", call: Call, kind: str, layer: int) -> RemovableHandle:
    heads = model.anatomy.heads

    def see(tensor: Tensor) -> Tensor:
        if current() is not call:
            return tensor
        whole = tensor if tensor.ndim == 3 else tensor.unflatten(0, (call.positions.ids.shape[0], -1))
        if kind == "z":
            seen = call.at(kind, layer, whole.unflatten(-1, (heads, -1))).flatten(-2)
        else:
            seen = call.at(kind, layer, whole)
        seen = seen.clone() if kind in model.adapter.modified_in_place else seen
        return seen.view_as(tensor) if tensor.ndim == 2 else seen

    module, read = {
        "resid_pre": (model.block(layer), True),
        "resid_mid": (model.part("mlp_norm", layer) or model.part("mlp", layer), True),
        "resid_post": (model.block(layer), False),
        "attn_out": (model.part("attention_added", layer), False),
        "mlp_out": (model.part("mlp_added", layer), False),
        "z": (model.part("attention_out", layer), True),
        "neurons": (model.part("mlp_out", layer), True),
    }[kind]
    assert module is not None
    if read:
        return module.register_forward_pre_hook(_reading(see), with_kwargs=True)
    return module.register_forward_hook(_writing(see))


def _reading(see: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> tuple[Any, Any] | None:
        if kwargs is None:  # torch forgot the kwargs: our run ended while another thread was between this module's hooks
            return None
        if args:
            return (see(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": see(kwargs["hidden_states"])}

    return hook


def _writing(see: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return (see(output[0]), *output[1:]) if isinstance(output, tuple) else see(output)

    return hook


def _pattern(model: "Model", call: Call, layer: int) -> RemovableHandle:
    """The probabilities that a family's own attention code returns beside its output: they can only be looked at."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if current() is call:
            call.at("pattern", layer, output[1], slice(0, output[1].shape[2]))

    return model.require_part("attention", layer).register_forward_hook(hook)


def _norm_scale(model: "Model", call: Call, kind: str, layer: int) -> RemovableHandle:
    """The scale is measured on what the norm reads; an edited one changes what it returns accordingly."""
    module = model.norm_module(kind, layer)
    norm = Norm.of(module)

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        now = current()
        beside = isinstance(now, Capture) and now.parent is call  # the stream as an edited head input has it
        if now is not call and not beside:
            return None
        scale = norm.scale(args[0])
        flat = scale.ndim == 1
        seen = (scale.unflatten(0, (call.positions.ids.shape[0], -1)) if flat else scale).clone()
        wanted = call.at(kind, layer, seen, only_edits=beside)
        if wanted is seen and not scale.requires_grad:
            return None
        if not bool((wanted > 0).all()):
            raise UsageError(
                f"{model.site((kind, layer))} was edited to zero or below, but a norm divides by it. Give positive values."
            )
        return rescaled(norm, output, scale, wanted.flatten(0, 1) if flat else wanted)  # so that gradients reach the scale

    return module.register_forward_hook(hook)


def _inputs(model: "Model", call: Call, layer: int) -> list[RemovableHandle]:
    """Before the block's attention runs, run it once more for each edited input, and keep the q, k or v of that stream.

    The attention function then takes them for the head in question; the other heads are not touched.
    """
    norm, stream = model.part("attention_norm", layer), []

    def remember(module: nn.Module, args: tuple[Any, ...]) -> None:
        if current() is call:
            stream[:] = args[:1]

    def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if current() is not call:
            return
        normed = args[0] if args else kwargs["hidden_states"]
        before = stream[0] if norm is not None else normed
        call.read[layer] = [
            (kind[0], head, _reread(call, kind, module, norm, edited, args[1:], kwargs))
            for kind, head, edited in _edited_streams(call, layer, before)
        ]

    handles = [model.require_part("attention", layer).register_forward_pre_hook(read, with_kwargs=True)]
    return handles if norm is None else [norm.register_forward_pre_hook(remember), *handles]


def _edited_streams(call: Call, layer: int, stream: Tensor) -> list[tuple[str, int | None, Tensor]]:
    """Each edited input with the stream it reads; several edits of one input follow each other, those of every head first."""
    edited: dict[tuple[str, int | None], Tensor] = {}
    for kind, head, handler in sorted(call.inputs(layer), key=lambda one: one[1] is not None):
        before = edited.get((kind, head), edited.get((kind, None), stream))
        after = handler(before, EVERY)
        edited[kind, head] = before if after is None else after
        call.fired.add((kind, layer))
    return [(kind, head, one) for (kind, head), one in edited.items()]


def _reread(
    call: Call,
    kind: str,
    attention: nn.Module,
    norm: nn.Module | None,
    stream: Tensor,
    rest: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Tensor:
    if kind != "q_in" and call.positions.growing and call.positions.offset:
        raise UsageError(
            f"{kind} cannot be edited while text is generated with a cache: the keys and values of earlier steps are in it "
            "unedited. Generate with use_cache=False, or edit k and v."
        )
    capture = Capture(call)
    with capture.running():
        given = {name: _scratch(value) if name in CACHES else value for name, value in kwargs.items() if name != "hidden_states"}
        attention.forward(norm(stream) if norm is not None else stream, *rest, **given)
    return capture.captured[kind[0]]


def _scratch(cache: Any) -> Any:
    """A cache that can be added to without the model's own noticing."""
    if cache is None:
        return None
    scratch = copy.copy(cache)
    scratch.layers = [copy.copy(layer) for layer in cache.layers]
    return scratch
