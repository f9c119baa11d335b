"""One way to run a model: tokens in, logits and recorded activations out, edits applied on the way.

1. Edits, recordings and watchers become handlers at places (`call.py`).
2. Hooks for exactly those places go on the Hugging Face modules; attention is opened where q, k, v or patterns are wanted.
3. The model runs once. Position ids are always given, since some families ignore the attention mask for them.
4. Everything comes off in one `finally`; a requested place that never fired raises.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from innerworks.errors import UnknownSite, UsageError
from innerworks.model.call import Call, Handler, Place, Positions
from innerworks.model.edit import Edit, narrowed
from innerworks.model.hooks import hooked
from innerworks.model.peft import adapter_layers
from innerworks.model.resume import KeysValues, first_layer, prefix, skipping
from innerworks.sites import INPUTS, KINDS, Site, expand

if TYPE_CHECKING:
    from innerworks.model.model import Model

Logits = Literal["all", "last", "none"]
Watch = tuple[Site, Handler]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one pass left behind. `run["L5H3.pattern"]` is a recorded tensor; shapes are in `innerworks.sites.KINDS`.

    Of a run of a suffix, `final`, `logits` and what was recorded begin at token `start`; k, v and the key axis hold all tokens.
    Recordings are the tensors that passed, and may share memory: clone them before you change them in place.
    """

    tokens: Int[Tensor, "batch seq"]
    mask: Bool[Tensor, "batch seq"]
    final: Float[Tensor, "batch some d_model"] = field(repr=False)  # the stream after the final norm
    logits: Tensor | None = field(repr=False)  # [batch, seq, vocab] (all), [batch, vocab] (last) or [chosen, vocab]
    recorded: dict[Place, Tensor] = field(repr=False)
    of: "Model" = field(repr=False)  # the model that ran
    start: int = 0
    clean: bool = True  # nothing was edited or watched, so other runs may resume from it
    streams: dict[int, Tensor] | None = field(default=None, repr=False)  # keep="resume": every block's output
    cache: KeysValues | None = field(default=None, repr=False)  # keep="resume": keys and values by layer
    switches: tuple[object, ...] = field(default=(), repr=False)  # how adapter layers were switched

    def __getitem__(self, site: str | Site) -> Tensor:
        site = Site.parse(site)
        place = self.of.place(site)
        if place not in self.recorded:
            known = ", ".join(self.sites) or "nothing"
            raise UnknownSite(f"{site} was not recorded in this run (recorded: {known}). Add it to record=[...].")
        return narrowed(self.recorded[place], replace(site, layer=place[1], kind=place[0]))[0]

    @property
    def sites(self) -> list[str]:
        """What was recorded."""
        return [self.of.site(place) for place in self.recorded]

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
        first = self.recorded[kind, layers[0]]
        return torch.stack([self.recorded[kind, layer].to(first.device) for layer in layers])

    def gradient(self, of: Float[Tensor, ""], site: str | Site) -> Tensor:
        """How does a number computed from this run (made with grad=True) change with a recorded activation? Same shape as it."""
        site = Site.parse(site)
        self[site]
        place = self.of.place(site)
        whole = self.recorded[place]
        if not (of.requires_grad and whole.requires_grad):
            raise UsageError(
                f"No gradient reaches {site}: run with grad=True, and compute the number from run.logits or run[...]."
            )
        (found,) = torch.autograd.grad(of, [whole], retain_graph=True, allow_unused=True)
        found = torch.zeros_like(whole) if found is None else found
        return narrowed(found, replace(site, layer=place[1], kind=place[0]))[0]


def run(
    model: "Model",
    tokens: Int[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    *,
    record: Iterable[str | Site] = (),
    edit: Sequence[Edit] = (),
    watch: Sequence[Watch] = (),
    logits: Logits | Bool[Tensor, "batch seq"] = "all",
    keep: bool = False,
    resume: Run | None = None,
    start: int = 0,
    grad: bool = False,
    to: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Run:
    """Run a model once; see `Model.run` for the meaning of the arguments. start: compute only from this token on."""
    call = Call(replace(Positions.of(mask), offset=start))
    recorded: dict[Place, list[Tensor]] = {}
    if grad and resume is None:  # where a run is resumed they flow from what is edited or recorded, and nothing before is run
        call.add("resid_pre", 0, _let_gradients_flow)  # first, so that recordings lie downstream of it
    add_edits(model, call, edit)
    for site in expand(record, layers=model.anatomy.layers, heads=model.anatomy.heads):
        _record(model, call, site, recorded, to=to, dtype=dtype)
    streams = {layer: [] for layer in range(model.anatomy.layers)} if keep else {}
    for layer, parts in streams.items():
        call.add("resid_post", layer, lambda stream, queries, parts=parts: parts.append(stream.clone()))  # nobody else's
    for site, handler in watch:
        model.check(site)
        call.add(*model.place(site), handler)
    cache = DynamicCache() if keep else None
    with ExitStack() as undo:
        undo.enter_context(torch.set_grad_enabled(grad))
        undo.enter_context(hooked(model, call))
        if resume is not None:
            first = first_layer(call)
            cache = prefix(resume.cache, start, first) if start else cache
            undo.enter_context(skipping(model, call, resume.streams, first, start))
        undo.enter_context(call.running())
        final = _decode(model, tokens, mask, call.positions, cache)
        scores = _logits(model, final, mask, logits, start)
    check_fired(model, call)
    return Run(
        tokens=tokens,
        mask=mask,
        final=final,
        logits=scores,
        recorded={place: _join(place[0], x) for place, x in recorded.items()},
        of=model,
        start=start,
        clean=not (edit or watch),
        streams={layer: parts[0] for layer, parts in streams.items()} if keep else None,
        cache=_keys_values(cache) if keep and cache is not None else None,
        switches=switches(model.hf),
    )


def switches(hf: nn.Module) -> tuple[object, ...]:
    """How each adapter layer of a model is switched: off, which are active, which are merged; nothing without any."""
    return tuple((one.disable_adapters, tuple(one.active_adapters), tuple(one.merged_adapters)) for one in adapter_layers(hf))


def _keys_values(cache: DynamicCache) -> KeysValues:
    layers: Any = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


def add_edits(model: "Model", call: Call, edits: Sequence[Edit]) -> None:
    """Turn edits into handlers, after checking that the model has such places and can change them."""
    for one in edits:
        model.check_editable(one.site)
        kind, layer = model.place(one.site)
        call.add(kind, layer, one.handler(call.positions), head=one.site.head if kind in INPUTS else None, edits=True)


def _record(
    model: "Model",
    call: Call,
    site: Site,
    recorded: dict[Place, list[Tensor]],
    *,
    to: torch.device | str | None,
    dtype: torch.dtype | None,
) -> None:
    model.check(site)
    if site.activation == "logits":
        raise UsageError("logits are not recorded: they come as run.logits, with logits='all', 'last' or positions.")
    if site.activation in INPUTS:
        raise UsageError(f"{site} is only edited: unedited, every head reads L{site.layer}.resid_pre. Record that.")
    place = model.place(site)
    if place not in recorded:
        recorded[place] = []
        call.add(*place, _recorder(recorded[place], to=to, dtype=dtype))


def _recorder(parts: list[Tensor], *, to: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Handler:
    def record(activation: Tensor, queries: slice) -> Tensor | None:
        cut = torch.is_grad_enabled() and not activation.requires_grad  # by an edit: gradients can still be taken of what it put
        activation = activation.detach().requires_grad_() if cut else activation
        kept = activation if to is None and dtype is None else activation.to(device=to, dtype=dtype)
        if kept is not activation and kept.requires_grad:
            raise UsageError("grad=True with to= or dtype=: nothing is computed from the copy, so no gradient would reach it.")
        parts.append(kept)
        return activation if cut else None

    return record


def _let_gradients_flow(activation: Tensor, queries: slice) -> Tensor | None:
    return None if activation.requires_grad else activation.detach().requires_grad_()


def _join(kind: str, parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=KINDS[kind][0].index("seq"))


def check_fired(model: "Model", call: Call) -> None:
    """Raise where something was wanted of a place that the forward did not pass."""
    silent = [model.site(place) for place in call.places if place not in call.fired]
    if silent:
        raise UnknownSite(
            f"{', '.join(silent)} never fired: the model's forward did not pass there, so nothing was measured or edited."
        )


def _decode(
    model: "Model", tokens: Tensor, mask: Tensor, positions: Positions, cache: DynamicCache | None
) -> Float[Tensor, "batch some d_model"]:
    """The model from token ids to the stream after the final norm."""
    decoder: Any = model.decoder
    return decoder(
        input_ids=tokens[:, positions.offset :],
        attention_mask=mask.long(),
        position_ids=positions.ids[:, positions.offset :],
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state


def _logits(model: "Model", final: Tensor, mask: Tensor, logits: Logits | Tensor, start: int) -> Tensor | None:
    if isinstance(logits, Tensor):
        if bool(logits[:, :start].any()):
            raise UsageError(f"logits= asks for positions before token {start}, where this run of a suffix begins.")
        return model.readout(final[logits[:, start:]])
    if logits == "all":
        return model.readout(final)
    if logits == "last":
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=-1)  # the last real token
        return model.readout(final[torch.arange(len(final)), (last - start).to(final.device)])
    if logits == "none":
        return None
    raise UsageError(f"logits={logits!r}: one of 'all', 'last', 'none', or a boolean tensor [batch, seq].")
