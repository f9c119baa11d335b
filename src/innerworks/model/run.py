"""One way to run a model: tokens in, logits and recorded activations out, edits applied on the way.

1. Edits, recordings and watchers become handlers at places (`call.py`).
2. Hooks for exactly those places go on the Hugging Face modules; attention is opened where q, k, v or patterns are wanted.
3. The model runs once. Position ids are always given, since some families ignore the attention mask for them.
4. Everything comes off in one `finally`; a requested place that never fired raises.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from innerworks.errors import UnknownSite, UsageError
from innerworks.model.call import INSIDE_ATTENTION, Call, Handler, current
from innerworks.model.edit import Edit
from innerworks.sites import KINDS, Site, expand

if TYPE_CHECKING:
    from innerworks.model.model import Model

Logits = Literal["all", "last", "none"]
Watch = tuple[Site, Handler]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one pass left behind. `run["L5H3.pattern"]` is a recorded tensor; shapes are in `innerworks.sites.KINDS`."""

    tokens: Int[Tensor, "batch seq"]
    mask: Bool[Tensor, "batch seq"]
    final: Float[Tensor, "batch seq d_model"] = field(repr=False)  # the stream after the final norm
    logits: Tensor | None = field(repr=False)  # [batch, seq, vocab] (all), [batch, vocab] (last) or [chosen, vocab]
    recorded: dict[tuple[str, int], Tensor] = field(repr=False)
    of: "Model" = field(repr=False)  # the model that ran
    clean: bool = True  # nothing was edited or watched, so other runs may resume from it

    def __getitem__(self, site: str | Site) -> Tensor:
        site = Site.parse(site)
        place = _place(site)
        if place not in self.recorded:
            known = ", ".join(str(Site(layer=layer, kind=kind)) for kind, layer in self.recorded) or "nothing"
            raise UnknownSite(f"{site} was not recorded in this run (recorded: {known}). Add it to record=[...].")
        return _part(self.recorded[place], site)

    @property
    def require_logits(self) -> Tensor:
        """The logits, where the run was asked for them; raises otherwise."""
        if self.logits is None:
            raise UsageError("This run computed no logits: run with logits='all', 'last' or positions.")
        return self.logits

    def stack(self, kind: str) -> Tensor:
        """Stack a kind over all recorded layers, in order: `[layer, ...]`."""
        layers = sorted(layer for name, layer in self.recorded if name == kind)
        if not layers:
            raise UnknownSite(f"No {kind} was recorded in this run. Add 'L*.{kind}' to record=[...].")
        return torch.stack([self.recorded[kind, layer] for layer in layers])


def run(
    model: "Model",
    tokens: Int[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    record: Iterable[str | Site] = (),
    edit: Sequence[Edit] = (),
    watch: Sequence[Watch] = (),
    logits: Logits | Bool[Tensor, "batch seq"] = "all",
    resume: Run | None = None,
    grad: bool = False,
) -> Run:
    """Run a model once; see `Model.run` for the meaning of the arguments."""
    position_ids = (mask.long().cumsum(dim=-1) - 1).clamp(min=0)
    call = Call()
    recorded: dict[tuple[str, int], list[Tensor]] = {}
    if grad:
        call.add("resid_pre", 0, _let_gradients_flow)  # first, so that recordings lie downstream of it
    for one in edit:
        _add(model, call, one.site, one.handler(position_ids))
    wanted = expand(record, layers=model.anatomy.layers, heads=model.anatomy.heads)
    for site in wanted:
        if site.activation == "logits":
            raise UsageError("logits are not recorded: they come as run.logits, with logits='all', 'last' or positions.")
        if _place(site) not in recorded:
            recorded[_place(site)] = []
            _add(model, call, site, _recorder(recorded[_place(site)]))
        else:
            model.check(site)
    for site, handler in watch:
        _add(model, call, site, handler)
    with ExitStack() as undo:
        undo.enter_context(torch.set_grad_enabled(grad))
        undo.enter_context(hooked(model, call))
        if resume is not None:
            undo.enter_context(_skipping(model, call, resume))
        undo.enter_context(call.running())
        final, scores = _forward(model, tokens, mask, position_ids, logits)
    _check_fired(call)
    return Run(
        tokens=tokens,
        mask=mask,
        final=final,
        logits=scores,
        recorded={place: _join(*place, x) for place, x in recorded.items()},
        of=model,
        clean=not (edit or watch),
    )


def _forward(
    model: "Model", tokens: Tensor, mask: Tensor, position_ids: Tensor, logits: Logits | Tensor
) -> tuple[Tensor, Tensor | None]:
    forward: Any = model.hf.base_model
    final = forward(input_ids=tokens, attention_mask=mask.long(), position_ids=position_ids, use_cache=False).last_hidden_state
    if isinstance(logits, Tensor):
        return final, model.readout(final[logits])
    if logits == "all":
        return final, model.readout(final)
    if logits == "last":
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=-1)  # the last real token
        return final, model.readout(final[torch.arange(len(final)), last])
    if logits == "none":
        return final, None
    raise UsageError(f"logits={logits!r}: one of 'all', 'last', 'none', or a boolean tensor [batch, seq].")


def _place(site: Site) -> tuple[str, int]:
    if site.kind == "embed":
        return "resid_pre", 0
    if site.layer is None:
        raise UnknownSite(f"{site} is no activation that passes through the blocks.")
    return site.activation, site.layer


def _add(model: "Model", call: Call, site: Site, handler: Handler) -> None:
    model.check(site)
    call.add(*_place(site), handler)


def _recorder(parts: list[Tensor]) -> Handler:
    def record(activation: Tensor, queries: slice) -> None:
        parts.append(activation)

    return record


def _let_gradients_flow(activation: Tensor, queries: slice) -> Tensor | None:
    return None if activation.requires_grad else activation.detach().requires_grad_()


def _join(kind: str, layer: int, parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=KINDS[kind][0].index("seq"))


def _part(activation: Tensor, site: Site) -> Tensor:
    axes = KINDS[site.activation][0]
    for axis, index in (("head", site.head), ("neuron", site.neuron)):
        if index is not None:
            activation = activation.select(axes.index(axis), index)
    return activation


def _check_fired(call: Call) -> None:
    silent = [str(Site(layer=layer, kind=kind)) for kind, layer in call.places if (kind, layer) not in call.fired]
    if silent:
        raise UnknownSite(
            f"{', '.join(silent)} never fired: the model's forward did not pass there, so nothing was measured or edited."
        )


# --- hooks -------------------------------------------------------------------------------------------------------


@contextmanager
def hooked(model: "Model", call: Call) -> Iterator[None]:
    """Put hooks for the places of a call on the model's modules, and take every one off again."""
    handles = []
    try:
        for kind, layer in call.places:
            if kind not in INSIDE_ATTENTION:
                handles.append(_hook(model, call, kind, layer))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(model: "Model", call: Call, kind: str, layer: int) -> Any:
    block, adapter, heads = model.block(layer), model.adapter, model.anatomy.heads

    def see(tensor: Tensor) -> Tensor:
        if current() is not call:  # another thread is running the same module
            return tensor
        if kind != "z":
            return call.at(kind, layer, tensor)
        return call.at(kind, layer, tensor.unflatten(-1, (heads, -1))).flatten(-2)

    module, read = {
        "resid_pre": (block, True),
        "resid_mid": (block.get_submodule(adapter.mlp_norm), True),
        "resid_post": (block, False),
        "attn_out": (block.get_submodule(adapter.attention), False),
        "mlp_out": (block.get_submodule(adapter.mlp), False),
        "z": (block.get_submodule(adapter.attention_out), True),
        "neurons": (block.get_submodule(adapter.mlp_out), True),
    }[kind]
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


# --- resumed runs ------------------------------------------------------------------------------------------------


def _first_layer(call: Call) -> int:
    return min((layer for _, layer in call.places), default=0)


@contextmanager
def _skipping(model: "Model", call: Call, clean: Run) -> Iterator[None]:
    """Let the blocks before the first place of a call hand on the clean run's stream instead of computing it again."""
    first = _first_layer(call)
    if first == 0:
        yield
        return
    if ("resid_post", first - 1) not in clean.recorded:
        raise UsageError("resume= needs a run made with keep='resume', on the same tokens.")
    stream = clean.recorded["resid_post", first - 1]
    with model.lock, ExitStack() as undo:
        for layer in range(first):
            block = model.block(layer)
            undo.callback(_restore, block, vars(block).get("forward"))
            block.forward = _hand_on(block.forward, call, stream)
        yield


def _restore(block: nn.Module, forward: Callable[..., Any] | None) -> None:
    """Undo the handing on: what the block itself had as `forward`, or the method of its class."""
    if forward is not None:
        block.forward = forward
    else:
        vars(block).pop("forward", None)


def _hand_on(forward: Callable[..., Any], call: Call, stream: Tensor) -> Callable[..., Any]:
    def skip(*args: Any, **kwargs: Any) -> Any:
        return stream if current() is call else forward(*args, **kwargs)  # another thread may run the same block

    return skip
