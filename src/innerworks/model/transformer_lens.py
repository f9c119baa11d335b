"""How do I move a notebook from TransformerLens? Its names, its cache and its hooks, on top of `Model.run`.

1. Every hook name that has a meaning here is a site (`blocks.5.attn.hook_z` is `L5.z`): `hook_names` lists them for a model.
2. `run_with_cache` records sites and hands them out under either name, in TransformerLens' shapes.
3. `run_with_hooks` hands activations to functions `f(tensor, hook)`; what they return, or change in place, goes on.

There is no second mechanism: both are one call of `Model.run`, so hooks come off whatever happens. Where conventions differ
(k and v are one per query head; weights are as they are on disk) is told in docs/transformer_lens.md. Gradients of hooks
(`bwd_hooks`), hooks that stay on a model, and runs that start or stop at a layer have no counterpart here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

from innerworks.errors import UnknownSite, UsageError, near_misses
from innerworks.model.call import Handler
from innerworks.model.edit import Edit
from innerworks.model.run import Run
from innerworks.sites import INPUTS, KINDS, LAYER_KINDS, Site

if TYPE_CHECKING:
    from innerworks.model.model import Model

Tokens = Tensor | str | Sequence[str]
ReturnType = Literal["logits", "loss", "both"] | None
NamesFilter = str | Site | Iterable[str | Site] | Callable[[str], bool] | None
HookFunction = Callable[..., Tensor | None]  # f(tensor, hook): what should go on instead, or nothing
Key = str | Site | tuple[str | int | None, ...]

SCALES = ("attn_norm_scale", "mlp_norm_scale", "norm_scale")  # `[batch, pos, 1]` there, `[batch, seq]` here
SHORT = {"attn": "pattern", "attn_logits": "attn_scores", "query": "q", "key": "k", "value": "v", "mlp_post": "post"}

_FINAL = "take model.run(...).final: the stream after the final norm, gain included"
_EMBED = "hook blocks.0.hook_resid_pre: the stream entering block 0, the sum of token and position embeddings"
_ROTATED = (
    "hook blocks.{n}.attn.hook_rot_%s (L{n}.%s), which is what enters the scores; what it is before the rotation is no site"
)
_NEURONS = "hook blocks.{n}.mlp.hook_post (L{n}.neurons): what the down projection reads, in gated models gate times up"
_NORMALIZED = "divide the stream (minus its mean, in a LayerNorm) by blocks.{n}.%s.hook_scale"
_READING = "run with edit=[patch('L{n}H3.%s', value)]: each head's reading is edited on its own; unedited it is L{n}.resid_pre"

_IN_BLOCKS = (
    "{name} comes in blocks of {rows} of the {length} queries, since the whole would be large; a hook needs the whole. Run fewer "
    "or shorter sequences at once, or use model.run(edit=[patch('{site}', value)]) or model.run(watch=[(site, handler)])."
)

#: hook names that only TransformerLens has -> what to do instead; `{n}` is the layer
INSTEAD: dict[str, str] = {
    "hook_embed": _EMBED,
    "hook_pos_embed": _EMBED,
    "attn.hook_q": _ROTATED % ("q", "q"),
    "attn.hook_k": _ROTATED % ("k", "k"),
    "attn.hook_result": "hook blocks.{n}.attn.hook_z and multiply it with each head's part of the output projection",
    "hook_attn_in": "hook blocks.{n}.hook_resid_pre, which all heads read",
    "hook_mlp_in": "look at blocks.{n}.hook_resid_mid, or change blocks.{n}.hook_mlp_out",
    "hook_q_input": _READING % "q_in",
    "hook_k_input": _READING % "k_in",
    "hook_v_input": _READING % "v_in",
    "mlp.hook_pre": _NEURONS,
    "mlp.hook_pre_linear": _NEURONS,
    "ln1.hook_normalized": _NORMALIZED % "ln1",
    "ln2.hook_normalized": _NORMALIZED % "ln2",
    "ln_final.hook_normalized": _FINAL,
    "ln_final.hook_out": _FINAL,
    "unembed.hook_in": _FINAL,
    "hook_unembed": "take the logits that the run returns",
    "unembed.hook_out": "take the logits that the run returns",
    "hook_in": "hook blocks.{n}.hook_resid_pre",
    "hook_out": "hook blocks.{n}.hook_resid_post",
    "ln1.hook_in": "hook blocks.{n}.hook_resid_pre",
    "ln2.hook_in": "hook blocks.{n}.hook_resid_mid",
    "attn.hook_out": "hook blocks.{n}.hook_attn_out, which is as added to the stream, after any post-norm",
    "attn.o.hook_in": "hook blocks.{n}.attn.hook_z",
    "attn.o.hook_out": "hook blocks.{n}.hook_attn_out, which is as added to the stream, after any post-norm",
    "attn.v.hook_out": "hook blocks.{n}.attn.hook_v",
    "mlp.hook_out": "hook blocks.{n}.hook_mlp_out, which is as added to the stream, after any post-norm",
    "mlp.out.hook_in": "hook blocks.{n}.mlp.hook_post",
    "mlp.out.hook_out": "hook blocks.{n}.hook_mlp_out, which is as added to the stream, after any post-norm",
}


@dataclass(frozen=True)
class Hook:
    """What a hook function is told about the place it is at."""

    name: str

    def layer(self) -> int:
        """The layer, where the place is inside a block."""
        match = re.match(r"blocks\.(\d+)\.", self.name)
        if match is None:
            raise UsageError(f"{self.name} lies in no layer.")
        return int(match[1])


class Cache(Mapping[str, Tensor]):
    """What a run recorded, under TransformerLens names, layer by layer.

    Read it as `cache["blocks.5.attn.hook_pattern"]`, `cache["pattern", 5]`, `cache["resid_post", -1]`,
    `cache["scale", 5, "ln1"]`, or by site: `cache["L5.pattern"]`, `cache["L5H3.pattern"]`.
    Streams are `[batch, pos, d_model]`, heads' vectors `[batch, pos, head, d_head]`, patterns `[batch, head, query, key]`,
    norm scales `[batch, pos, 1]`.
    """

    def __init__(self, run: Run, names: Mapping[str, Site], *, remove_batch_dim: bool = False) -> None:
        self.run, self._names, self._one = run, dict(names), remove_batch_dim
        self._known = hook_names(run.of)

    def __getitem__(self, key: Key) -> Tensor:
        site = _site(_spelled_out(key, self._known, self.run.of) if isinstance(key, tuple) else key, self._known)
        if _whole(site) not in self._names.values():
            raise UnknownSite(f"{key!r} is not in this cache, which holds {len(self)} activations. See names_filter=.")
        tensor = _their_shape(self.run[site], site)
        return tensor[0] if self._one else tensor

    def __contains__(self, key: object) -> bool:
        try:
            self[key]  # pyright: ignore[reportArgumentType]  # any object may be asked for
        except UnknownSite:
            return False
        return True

    def get(self, key: Key, default: Any = None) -> Any:
        """The activation, or `default` where it is not in the cache."""
        return self[key] if key in self else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Cache({', '.join(self._names)})"


def run_with_cache(
    model: "Model",
    tokens: Tokens,
    names_filter: NamesFilter = None,
    *,
    mask: Tensor | None = None,
    edit: Sequence[Edit] = (),
    return_type: ReturnType = "logits",
    return_cache_object: bool = True,
    remove_batch_dim: bool = False,
    device: str | None = None,
    grad: bool = False,
) -> tuple[Tensor | tuple[Tensor, Tensor] | None, Cache | dict[str, Tensor]]:
    """What does every part of the model compute on these tokens?

    tokens: ids `[batch, pos]` or `[pos]`, or text. names_filter: a name, several, or a function on names; by default all of
    `hook_names(model)`. edit: recordings see the edited activations. return_type: `logits` `[batch, pos, vocab]`, `loss`
    (mean next-token cross-entropy in nats), `both`, or None, which computes neither. device: where to keep the cache.
    Returns: the answer, and a `Cache` (a plain dict where return_cache_object is False).
    """
    tokens, mask = _tokenized(model, tokens, mask)
    if remove_batch_dim and len(tokens) != 1:
        raise UsageError(f"remove_batch_dim=True needs one sequence; there are {len(tokens)}.")
    names = _chosen(names_filter, hook_names(model))
    run = model.run(tokens, mask=mask, record=list(names.values()), edit=edit, logits=_logits(return_type), to=device, grad=grad)
    cache = Cache(run, names, remove_batch_dim=remove_batch_dim)
    return _answer(run, return_type), cache if return_cache_object else dict(cache)


def run_with_hooks(
    model: "Model",
    tokens: Tokens,
    fwd_hooks: Sequence[tuple[str | Callable[[str], bool], HookFunction]] = (),
    *,
    mask: Tensor | None = None,
    edit: Sequence[Edit] = (),
    return_type: ReturnType = "logits",
    grad: bool = False,
) -> Tensor | tuple[Tensor, Tensor] | None:
    """What does the model say when functions change what passes at these places?

    fwd_hooks: pairs of a name (or a function on names) and `f(tensor, hook)`, which may return what should go on instead or
    change the tensor in place; `hook.name` and `hook.layer()` say where it is. Functions at one place see each other's
    changes, in the order given; `edit` comes before them. Nothing stays on the model, also when a function raises.
    Returns: as `run_with_cache` by return_type.
    """
    tokens, mask = _tokenized(model, tokens, mask)
    known = hook_names(model)
    watch = [
        (site, _handler(model, function, Hook(name), site, length=tokens.shape[1]))
        for chosen, function in fwd_hooks
        for name, site in _hooked(chosen, known).items()
    ]
    return _answer(model.run(tokens, mask=mask, watch=watch, edit=edit, logits=_logits(return_type), grad=grad), return_type)


# --- names ---------------------------------------------------------------------------------------------------------


def hook_names(model: "Model") -> dict[str, Site]:
    """Every TransformerLens name that can be cached or hooked in this model, layer by layer."""
    kinds = [kind for kind in LAYER_KINDS if kind not in INPUTS]
    sites = [Site(layer=layer, kind=kind) for layer in range(model.anatomy.layers) for kind in kinds]
    named = [(_name(model, site), site) for site in [*sites, Site(kind="norm_scale")]]
    return {name: site for name, site in named if name is not None and _there(model, site)}


def table() -> str:
    """The names that mean the same, as a table in Markdown: docs/transformer_lens.md shows it, and a test compares."""
    rows = ["| TransformerLens | innerworks | axes here | what it is |", "|---|---|---|---|"]
    for kind, (axes, meaning) in KINDS.items():
        site = Site(kind=kind) if kind == "norm_scale" else Site(layer=5, kind=kind)
        name = _theirs(site)
        if name is not None:
            rows.append(f"| `{name}` | `{site}` | {' '.join(axes)} | {meaning} |")
    return "\n".join(rows)


def _theirs(site: Site) -> str | None:
    if site.layer is not None and site.kind not in LAYER_KINDS:
        return None
    try:
        return site.to_transformer_lens()
    except UnknownSite:
        return None


def _name(model: "Model", site: Site) -> str | None:
    """As TransformerLens names it in this model: where nothing rotates q and k, it has `hook_q` and no `hook_rot_q`."""
    name = _theirs(site)
    if name is None or site.kind not in ("q", "k") or model.adapter.rotary(model.config, site.layer or 0):
        return name
    return name.replace("hook_rot_", "hook_")


def _there(model: "Model", site: Site) -> bool:
    try:
        model.check(site)
    except UnknownSite:
        return False
    return True


def _chosen(wanted: NamesFilter, known: dict[str, Site]) -> dict[str, Site]:
    if wanted is None:
        return known
    if callable(wanted):
        found = {name: site for name, site in known.items() if wanted(name)}
        if not found:
            raise UnknownSite(f"The filter of names fits none of the {len(known)} names, such as {', '.join(list(known)[:3])}.")
        return found
    sites = [_whole(_site(one, known)) for one in ([wanted] if isinstance(wanted, str | Site) else wanted)]
    names = {site: name for name, site in known.items()}
    return {names.get(site) or site.to_transformer_lens(): site for site in sites}


def _hooked(wanted: str | Callable[[str], bool], known: dict[str, Site]) -> dict[str, Site]:
    site = _site(wanted, known) if isinstance(wanted, str) else None
    if site is not None and site != _whole(site):
        raise UnknownSite(f"A hook sees the whole of {_whole(site)}, not {site} alone: name that, and index the tensor.")
    return _chosen(wanted, known)


def _whole(site: Site) -> Site:
    return Site(layer=site.layer, kind=site.activation)


def _site(text: str | Site, known: Mapping[str, Site]) -> Site:
    """The site of a name of theirs or ours; names that only TransformerLens has say what to do instead."""
    if isinstance(text, str) and text in known:
        return known[text]
    match = re.fullmatch(r"(?:blocks\.(?P<layer>\d+)\.)?(?P<hook>[a-z0-9_.]+)", str(text))
    if match is not None and match["hook"] in INSTEAD:
        raise UnknownSite(f"{text!r} has no counterpart here. Instead, {INSTEAD[match['hook']].format(n=match['layer'])}.")
    site = Site.parse(text)
    if site.kind in INPUTS:
        raise UnknownSite(f"{text!r}: {_READING % site.kind}.".format(n=site.layer))
    if site.kind == "embed":
        raise UnknownSite(f"'embed' is not the same here and in TransformerLens. Instead, {_EMBED}.")
    return site


def _spelled_out(key: tuple[str | int | None, ...], known: Mapping[str, Site], model: "Model") -> str:
    """`("pattern", 5)` in full: `blocks.5.attn.hook_pattern`; a third part says which, as in `("scale", 5, "ln1")`."""
    short, layer, *part = key if len(key) > 1 else (*key, None)
    short = SHORT.get(str(short), str(short))
    layer = layer + model.anatomy.layers if isinstance(layer, int) and layer < 0 else layer
    start = "ln_final." if layer is None else f"blocks.{layer}."
    hooks = [name.removeprefix(start) for name in known if name.startswith(start)]
    shorts = {hook: hook.rpartition("hook_")[-1] for hook in [*hooks, *INSTEAD]}
    found = [hook for hook in shorts if shorts[hook] == short and all(hook.startswith(f"{one}.") for one in part)]
    if len(found) > 1:
        raise UnknownSite(f"{key!r} could be {', '.join(found)}. Say which: {(short, layer, found[0].split('.')[0])!r}.")
    if not found or not hooks:
        raise UnknownSite(
            f"{key!r} is no activation of the layers 0 to {model.anatomy.layers - 1}.{near_misses(short, shorts.values())}"
        )
    return start + found[0]


# --- one run ---------------------------------------------------------------------------------------------------------


def _tokenized(model: "Model", tokens: Tokens, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if not isinstance(tokens, Tensor):
        return model.tokenize(tokens)
    return (tokens[None] if tokens.ndim == 1 else tokens), mask


def _logits(return_type: ReturnType) -> Literal["all", "none"]:
    if return_type not in ("logits", "loss", "both", None):
        raise UsageError(f"return_type={return_type!r}: one of 'logits', 'loss', 'both' or None.")
    return "none" if return_type is None else "all"


def _answer(run: Run, return_type: ReturnType) -> Tensor | tuple[Tensor, Tensor] | None:
    if return_type is None or return_type == "logits":
        return run.logits
    real = run.mask[:, 1:] & run.mask[:, :-1]
    logits = run.require_logits
    loss = cross_entropy(logits[:, :-1][real].float(), run.tokens[:, 1:][real])
    return loss if return_type == "loss" else (logits, loss)


def _handler(model: "Model", function: HookFunction, hook: Hook, site: Site, *, length: int) -> Handler:
    rows = KINDS[site.activation][0].index("seq")
    refused = _refused(model, site)

    def handle(activation: Tensor, queries: slice) -> Tensor | None:
        if activation.shape[rows] != length:
            raise UsageError(_IN_BLOCKS.format(name=hook.name, site=site, rows=activation.shape[rows], length=length))
        seen = _their_shape(activation.clone(), site)  # a clone: the function may write into it
        changed = function(seen, hook=hook)
        looked = changed is None and seen.equal(_their_shape(activation, site))
        changed = seen if changed is None else changed
        if not isinstance(changed, Tensor) or changed.shape != seen.shape:
            said = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise UsageError(f"A hook at {hook.name} returned {said} in place of a tensor {tuple(seen.shape)}.")
        changed = changed.squeeze(-1) if site.activation in SCALES else changed
        if refused is not None and not changed.equal(activation):
            raise refused
        return None if looked or refused is not None else changed

    return handle


def _refused(model: "Model", site: Site) -> UnknownSite | None:
    try:
        model.check_editable(site)
    except UnknownSite as refused:
        return refused
    return None


def _their_shape(tensor: Tensor, site: Site) -> Tensor:
    return tensor.unsqueeze(-1) if site.activation in SCALES else tensor
