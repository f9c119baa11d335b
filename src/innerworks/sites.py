"""Places in a model, with one spelling everywhere: code, tables, figures, URLs, command line.

`L5.resid_post` the stream after block 5 · `L5H3` head 3 of layer 5 · `L5H3.pattern` what it attends to · `L5N812` a neuron ·
`L5E3N12` a neuron of an expert · `L5D507` one dimension of the stream after block 5 · `L5.mlp_out` a sub-layer's output ·
`L5` a layer · `embed`, `norm_scale`, `logits`, `model`.
Everything counts from zero.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from innerworks.errors import UnknownSite, near_misses

AXES = ("batch", "seq", "key", "layer", "head", "kv_head", "d_head", "d_model", "expert", "neuron", "feature", "vocab", "site")

Axes = tuple[str, ...]

#: kind -> the axes of the recorded tensor, and what it is. `head`, `expert`, `neuron` and
#: `d_model` axes can be narrowed to one (`L5H3.z`, `L5D7.mlp_out`).
KINDS: dict[str, tuple[Axes, str]] = {
    "embed": (("batch", "seq", "d_model"), "the stream entering block 0: token (and learned position) embeddings"),
    "resid_pre": (("batch", "seq", "d_model"), "the stream entering the block"),
    "resid_mid": (("batch", "seq", "d_model"), "the stream between attention and feed-forward (recorded only)"),
    "resid_post": (("batch", "seq", "d_model"), "the stream leaving the block"),
    "attn_out": (("batch", "seq", "d_model"), "what attention adds to the stream, output bias included"),
    "mlp_out": (("batch", "seq", "d_model"), "what the feed-forward adds to the stream, output bias included"),
    "attn_norm_scale": (("batch", "seq"), "what the norm before attention divides the stream by"),
    "mlp_norm_scale": (("batch", "seq"), "what the norm before the feed-forward divides the stream by"),
    "q_in": (("batch", "seq", "d_model"), "the stream as one head reads it for its queries (edited only)"),
    "k_in": (("batch", "seq", "d_model"), "the stream as one head reads it for its keys (edited only)"),
    "v_in": (("batch", "seq", "d_model"), "the stream as one head reads it for its values (edited only)"),
    "q": (("batch", "seq", "head", "d_head"), "queries as they enter the score, after any rotation"),
    "k": (("batch", "seq", "head", "d_head"), "keys as they enter the score, repeated to one per query head"),
    "v": (("batch", "seq", "head", "d_head"), "values, repeated to one per query head"),
    "scores": (("batch", "head", "seq", "key"), "attention scores before the softmax; masked keys hold the lowest number"),
    "pattern": (("batch", "head", "seq", "key"), "attention probabilities, after the softmax"),
    "z": (("batch", "seq", "head", "d_head"), "what each head read: pattern @ v, before the output projection"),
    "neurons": (("batch", "seq", "neuron"), "feed-forward activations: the input of the down projection"),
    "expert_neurons": (
        ("batch", "seq", "expert", "neuron"),
        "the same in a mixture of experts, times the routing weight; zero where a token was not routed to the expert",
    ),
    "norm_scale": (("batch", "seq"), "what the final norm divides the stream by"),
    "logits": (("batch", "seq", "vocab"), "the scores of the next token"),
}
WHOLE_MODEL = ("embed", "norm_scale", "logits", "model")
LAYER_KINDS = tuple(kind for kind in KINDS if kind not in WHOLE_MODEL)
#: what a site may be narrowed to, and along which axis
PARTS = {"head": "head", "expert": "expert", "neuron": "neuron", "dimension": "d_model"}
INPUTS = ("q_in", "k_in", "v_in")  # a head's own reading of the stream, though the stream has no axis of heads

_SITE = re.compile(
    r"L(?P<layer>\d+)(?:H(?P<head>\d+)|D(?P<dimension>\d+)|(?:E(?P<expert>\d+))?(?:N(?P<neuron>\d+))?)"
    r"(?:\.(?P<kind>[a-z_]+))?(?:\.F(?P<feature>\d+))?"
)
_PATTERN = re.compile(r"L(?P<layer>\d+|\*)(?:H(?P<head>\d+|\*))?\.(?P<kind>[a-z_]+)")
_TRANSFORMER_LENS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "ln1.hook_scale": "attn_norm_scale",
    "ln2.hook_scale": "mlp_norm_scale",
    "hook_q_input": "q_in",
    "hook_k_input": "k_in",
    "hook_v_input": "v_in",
    "attn.hook_rot_q": "q",
    "attn.hook_rot_k": "k",
    "attn.hook_v": "v",
    "attn.hook_attn_scores": "scores",
    "attn.hook_pattern": "pattern",
    "attn.hook_z": "z",
    "mlp.hook_post": "neurons",
}
_FROM_TRANSFORMER_LENS = re.compile(r"blocks\.(?P<layer>\d+|\*)\.(?P<hook>[a-z0-9_.]+)")


@dataclass(frozen=True)
class Site:
    """One place in a model. Build it with `Site.parse`, print it with `str`; the two are inverse.

    >>> Site.parse("L5H3.pattern")
    Site(layer=5, head=3, expert=None, neuron=None, dimension=None, feature=None, kind='pattern')
    >>> str(Site(layer=5, neuron=812))
    'L5N812'
    >>> str(Site.parse("blocks.5.attn.hook_z"))
    'L5.z'
    """

    layer: int | None = None
    head: int | None = None
    expert: int | None = None
    neuron: int | None = None
    dimension: int | None = None
    feature: int | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        for part, axis in PARTS.items():
            own = self.kind not in KINDS or axis in KINDS[self.kind][0] or (part == "head" and self.kind in INPUTS)
            if getattr(self, part) is not None and not own:
                raise UnknownSite(f"{self}: {self.kind} has no {part} of its own; L{self.layer}.{self.kind} is the place.")

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """Read a site as printed, or a TransformerLens hook name. Raises UnknownSite with near misses."""
        if isinstance(text, Site):
            return text
        ours = translate(text)
        if ours in WHOLE_MODEL:
            return cls(kind=ours)
        match = _SITE.fullmatch(ours)
        if match is None:
            raise UnknownSite(
                f"{text!r} is not a place in a model. Places look like L5.resid_post, L5H3.pattern, L5N812 or embed."
            )
        parts = match.groupdict()
        if parts["kind"] is not None and parts["kind"] not in LAYER_KINDS:
            raise UnknownSite(f"{text!r}: no kind of site is called {parts['kind']!r}.{near_misses(parts['kind'], LAYER_KINDS)}")
        number = {axis: int(parts[axis]) if parts[axis] else None for axis in ("layer", *PARTS, "feature")}
        return cls(**number, kind=parts["kind"])

    def __str__(self) -> str:
        if self.layer is None:
            return self.kind or "model"
        text = f"L{self.layer}"
        text += f"H{self.head}" if self.head is not None else ""
        text += f"E{self.expert}" if self.expert is not None else ""
        text += f"N{self.neuron}" if self.neuron is not None else ""
        text += f"D{self.dimension}" if self.dimension is not None else ""
        text += f".{self.kind}" if self.kind else ""
        return text + (f".F{self.feature}" if self.feature is not None else "")

    @property
    def activation(self) -> str:
        """The kind of activation this site stands for: a head means its `z`, a neuron `neurons`, a dimension `resid_post`."""
        if self.kind is not None:
            return self.kind
        if self.head is not None:
            return "z"
        if self.expert is not None:
            return "expert_neurons"
        if self.neuron is not None:
            return "neurons"
        if self.dimension is not None:
            return "resid_post"
        raise UnknownSite(f"{self} is a layer: say which of its activations, e.g. {self}.resid_post or {self}.attn_out.")

    def to_transformer_lens(self) -> str:
        """The TransformerLens hook name of this activation (`blocks.5.attn.hook_z`); a head or neuron index is dropped."""
        if self.layer is None and self.kind == "norm_scale":
            return "ln_final.hook_scale"
        if self.layer is None or self.activation not in _TRANSFORMER_LENS.values():
            raise UnknownSite(f"{self} has no TransformerLens hook name with the same meaning.")
        hook = {ours: theirs for theirs, ours in _TRANSFORMER_LENS.items()}[self.activation]
        return f"blocks.{self.layer}.{hook}"


def head_site(layer: int, head: int) -> str:
    """Return the name of a head, `L10H7`."""
    return f"L{layer}H{head}"


def translate(text: str) -> str:
    """Turn a TransformerLens hook name into ours; leave anything else alone."""
    if text == "ln_final.hook_scale":
        return "norm_scale"
    match = _FROM_TRANSFORMER_LENS.fullmatch(text)
    if match is None:
        return text
    if match["hook"] in ("attn.hook_q", "attn.hook_k"):
        letter = match["hook"][-1]
        raise UnknownSite(
            f"{text!r} is a projection before the rotation, which is not a site. "
            f"blocks.N.attn.hook_rot_{letter} (our LN.{letter}) is."
        )
    kind = _TRANSFORMER_LENS.get(match["hook"])
    if kind is None:
        raise UnknownSite(f"No site has the meaning of {text!r}.{near_misses(match['hook'], _TRANSFORMER_LENS)}")
    return f"L{match['layer']}.{kind}"


def expand(patterns: Iterable[str | Site], *, layers: int, heads: int) -> list[Site]:
    """Spell out wildcards: `L*.resid_post` is one site per layer, `L2H*.z` one per head of layer 2."""
    sites: list[Site] = []
    for pattern in patterns:
        if isinstance(pattern, Site):
            sites.append(pattern)
            continue
        match = _PATTERN.fullmatch(translate(pattern))
        if match is None or "*" not in pattern:
            sites.append(Site.parse(pattern))
            continue
        which = range(layers) if match["layer"] == "*" else (int(match["layer"]),)
        what = (None,) if match["head"] is None else range(heads) if match["head"] == "*" else (int(match["head"]),)
        sites += [Site.parse(f"L{layer}{'' if head is None else f'H{head}'}.{match['kind']}") for layer in which for head in what]
    return sites
