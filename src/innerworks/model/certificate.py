"""The certificate: proof, at load and on this machine, that what will be measured is what the model computes.

Two short sequences of random tokens, longer than any sliding window (which is narrowed for the occasion), are run a few times,
and each check compares numbers that must agree: hooks that do nothing change nothing; attention and experts opened up give the
same logits; no token changes what comes before it; rows of a pattern sum to one and pattern @ v is z; the stream entering a
block, plus what attention adds, plus what the feed-forward adds, is the stream entering the next, and the norm of the last is
what is read out; heads + bias = attention's output and neurons through the down projection = feed-forward's, after any
post-norm; padding left or right changes nothing; gradients arrive. What a family does not have (own attention code shows no
values, a post-LN stream is no sum) is left out and said. A failure refuses the model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from innerworks.errors import BrokenModel, CertificateFailed
from innerworks.model.anatomy import find
from innerworks.model.attention import PREFIX
from innerworks.model.norms import Norm

if TYPE_CHECKING:
    from innerworks.model.model import Model

LENGTH = 24  # tokens of the probe
WINDOW = 8  # what a sliding window is narrowed to meanwhile, so that the probe is longer


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison: the largest difference seen, what is allowed, and whether it passed."""

    what: str
    difference: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Is the difference within what is allowed (and a number)?"""
        return self.difference <= self.allowed


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the checks found for one model on this machine."""

    model: str
    dtype: str
    checks: tuple[Check, ...]
    left_out: tuple[str, ...] = ()  # what this model has no such thing of, and why

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def require(self) -> "Certificate":
        """Return it if every check passed, or raise CertificateFailed with the numbers (and this as its `certificate`)."""
        if not self.failed:
            return self
        numbers = "; ".join(f"{check.what}: off by {check.difference:.2g}, allowed {check.allowed:.2g}" for check in self.failed)
        raise CertificateFailed(
            f"{self.model} fails {len(self.failed)} of {len(self.checks)} checks, so measurements on it would be wrong. "
            f"{numbers}. If the family is new, its adapter is probably wrong; if the model was changed by hand, undo that.",
            self,
        )

    def as_dict(self) -> dict[str, object]:
        """Return it as plain data for a manifest."""
        return asdict(self)


def certify(model: "Model") -> Certificate:
    """Check a model, or raise CertificateFailed (BrokenModel for NaN weights) with the numbers."""
    return check(model).require()


def check(model: "Model") -> Certificate:
    """What do the checks find, whether they pass or not? BrokenModel for NaN weights, on which nothing can be checked."""
    refuse_broken_weights(model.hf)
    with _narrow_window(model.config):
        probe = _Probe(model)
        checks = tuple(
            Check(what=what, difference=probe.relative(difference), allowed=allowed) for what, difference, allowed in probe.all()
        )
    dtype = str(next(model.hf.parameters()).dtype).removeprefix("torch.")
    return Certificate(model=model.name, dtype=dtype, checks=checks, left_out=tuple(probe.left_out))


@contextmanager
def _narrow_window(config: Any) -> Iterator[None]:
    """Make a sliding window shorter than the probe, so that its edge is tested, too."""
    window = getattr(config, "sliding_window", None)
    if not window:
        yield
        return
    config.sliding_window = min(window, WINDOW)
    try:
        yield
    finally:
        config.sliding_window = window


def refuse_broken_weights(hf: nn.Module) -> None:
    """Raise BrokenModel where a weight is NaN or infinite, or was never loaded."""
    weights = dict(hf.named_parameters())
    nowhere = [name for name, weight in weights.items() if weight.device.type == "meta" and not _fetched(hf, name)]
    if nowhere:  # what is multiplied by such a weight is whatever lay in memory
        raise BrokenModel(
            f"Weights that were never loaded (they lie on the meta device): {_some(nowhere)}. Load the model again."
        )
    broken = [name for name, weight in weights.items() if _broken(weight)]
    if broken:
        raise BrokenModel(
            f"Weights that are NaN or infinite: {_some(broken)}. The files are damaged or training diverged; load another copy."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _fetched(hf: nn.Module, name: str) -> bool:
    """Does accelerate fetch this weight when it is needed?"""
    parts = name.split(".")[:-1]
    return any(hasattr(hf.get_submodule(".".join(parts[:n])), "_hf_hook") for n in range(len(parts) + 1))


def _broken(weight: Tensor) -> bool:
    readable = weight.is_floating_point() and weight.device.type != "meta"
    return readable and not bool(torch.isfinite(weight).all())


class _Probe:
    """The runs that the checks compare. Differences are norms relative to the norm of what is compared, the worst layer's."""

    def __init__(self, model: "Model") -> None:
        self.model = model
        self.layers = range(model.anatomy.layers)
        generator = torch.Generator().manual_seed(0)
        length = min(LENGTH, model.anatomy.max_positions or LENGTH)
        self.tokens = torch.randint(model.anatomy.vocab, (2, length), generator=generator).to(model.device)
        kinds = ["z", "attn_out", "mlp_out", "neurons", "resid_pre", "resid_mid", "resid_post"]
        outside = [site for kind in kinds for site in model.sites(kind)]
        inside = [site for kind in ("pattern", "v", "expert_neurons") for site in model.sites(kind)]
        self.closed = model.run(self.tokens, record=outside)
        self.open = model.run(self.tokens, record=[*outside, *inside])
        wide = next(model.hf.parameters()).dtype in (torch.float32, torch.float64)
        self.allowed = 1e-4 if wide else 0.05
        self.left_out: list[str] = []

    def relative(self, pair: tuple[Tensor, Tensor]) -> float:
        ours, theirs = (x.detach().float().cpu().flatten(1) for x in pair)  # layer (or sequence) first
        size = theirs.norm(dim=1)
        difference = ((ours - theirs).norm(dim=1) / torch.where(size > 0, size, 1.0)).max()
        return float("inf") if torch.isnan(difference) else float(difference)

    def all(self) -> list[tuple[str, tuple[Tensor, Tensor], float]]:
        checks: list[tuple[str, Callable[[], tuple[Tensor, Tensor]], float]] = [
            ("hooks that do nothing leave the logits bit for bit", self.plain, 0.0),
            (
                "logits with attention and experts opened up",
                lambda: (self.open.require_logits, self.closed.require_logits),
                self.allowed,
            ),
            ("no token changes what comes before it", self.past, self.allowed),
            ("no query sees the future", self.future, 0.0),
            ("rows of a pattern sum to one", self.rows, self.allowed),
            *self._inside_attention(),
            ("heads + bias = attention's output", self.heads, self.allowed),
            ("neurons through the down projection = feed-forward's output", self.neurons, self.allowed),
            *self._sums(),
            ("stream after a block = stream before the next", self.joined, 0.0),
            *self._final(),
            ("padding on the left changes nothing", lambda: self.padded(left=True), self.allowed),
            ("padding on the right changes nothing", lambda: self.padded(left=False), self.allowed),
            ("gradients arrive", self.gradient, 0.0),
        ]
        return [(what, compare(), allowed) for what, compare, allowed in checks]

    def _inside_attention(self) -> list[tuple[str, Callable[[], tuple[Tensor, Tensor]], float]]:
        own, unreadable = self.model.adapter.attention_code == "own", self.model.weights.unreadable
        if own:
            self.left_out.append("pattern @ v = z: its attention code is its own and shows no values")
        read = [] if own else [("pattern @ v = z", self.read, self.allowed)]
        what = "pattern @ (norm(stream) @ W_V + b_V) = z" if own else "norm(stream) @ W_V + b_V = v"
        if unreadable is not None:
            self.left_out.append(f"{what}: {unreadable}")
            return read
        return [*read, (what, self.read_by_weights if own else self.values, self.allowed)]

    def _sums(self) -> list[tuple[str, Callable[[], tuple[Tensor, Tensor]], float]]:
        if not self.model.anatomy.sums:
            self.left_out.append("the stream is the sum of what is added: it is normed after each addition")
            return []
        total = ("everything that was added = the final stream", self.total, self.allowed)
        if self.model.anatomy.parallel:  # three numbers, which families add in different orders
            return [("stream + attention's output + feed-forward's output = stream after", self.block, self.allowed), total]
        return [
            ("stream + attention's output = stream between", self.middle, 0.0),
            ("stream between + feed-forward's output = stream after", self.after, 0.0),
            total,
        ]

    def _final(self) -> list[tuple[str, Callable[[], tuple[Tensor, Tensor]], float]]:
        if find(self.model.hf, self.model.adapter.final_norm) is None:
            self.left_out.append("norm of the final stream = what is read out: it has no final norm")
            return []
        return [("norm of the final stream = what is read out", self.normed, self.allowed)]

    def plain(self) -> tuple[Tensor, Tensor]:
        """The model with its own attention and experts, as if it had never been wrapped."""
        config: Any = self.model.config
        attention, experts = config._attn_implementation_internal, config._experts_implementation_internal
        config._attn_implementation_internal = attention.removeprefix(PREFIX)
        config._experts_implementation_internal = experts.removeprefix(PREFIX) if experts else experts
        try:
            return self.closed.require_logits, self.unhooked()
        finally:
            config._attn_implementation_internal, config._experts_implementation_internal = attention, experts

    def unhooked(self) -> Tensor:
        with torch.no_grad():
            positions = torch.arange(self.tokens.shape[1], device=self.tokens.device).expand_as(self.tokens)
            mask = torch.ones_like(self.tokens)
            theirs = self.model.hf(input_ids=self.tokens, attention_mask=mask, position_ids=positions, use_cache=False)
        return theirs.logits

    def past(self) -> tuple[Tensor, Tensor]:
        """Other tokens in the last third must leave the logits of the first two thirds as they were."""
        kept = self.tokens.shape[1] - self.tokens.shape[1] // 3
        other = self.tokens.clone()
        other[:, kept:] = (other[:, kept:] + 1) % self.model.anatomy.vocab
        return self.model.run(other).require_logits[:, :kept], self.closed.require_logits[:, :kept]

    def future(self) -> tuple[Tensor, Tensor]:
        later = self.open.stack("pattern").triu(diagonal=1)
        return later, torch.zeros_like(later)

    def rows(self) -> tuple[Tensor, Tensor]:
        total = self.open.stack("pattern").float().sum(dim=-1)
        return total, torch.ones_like(total)

    def read(self) -> tuple[Tensor, Tensor]:
        ours = torch.einsum("lbhqk,lbkhd->lbqhd", self.open.stack("pattern"), self.open.stack("v"))
        return ours, self.open.stack("z")

    def values(self) -> tuple[Tensor, Tensor]:
        """The matrices that analyses of weights read, per query head, against what attention computed with."""
        made = []
        for layer in self.layers:
            stream, weights = self.closed[f"L{layer}.resid_pre"], self.model.weights
            norm = self.model.part("attention_norm", layer) if self.model.anatomy.sums else None
            with torch.no_grad():
                stream = stream if norm is None else norm(stream)
            made.append(torch.einsum("bqm,hmd->bqhd", stream, weights.W_V(layer, per_head=True)))
            made[-1] = (made[-1] + weights.b_V(layer, per_head=True)).cpu()
        ours = torch.stack(made)
        return ours, self.open.stack("v").cpu() if self.model.sites("v") else ours

    def read_by_weights(self) -> tuple[Tensor, Tensor]:
        """The same where attention shows no values: what its pattern reads of them is z."""
        return torch.einsum("lbhqk,lbkhd->lbqhd", self.open.stack("pattern").cpu(), self.values()[0]), self.open.stack("z").cpu()

    def heads(self) -> tuple[Tensor, Tensor]:
        written = []
        for layer in self.layers:
            module, z = self.model.require_part("attention_out", layer), self.closed[f"L{layer}.z"]
            bias = getattr(module, "bias", None)
            with torch.no_grad():
                one = (
                    module(z.flatten(-2))
                    if self.model.weights.unreadable
                    else torch.einsum("bqhd,hdm->bqm", z, self.model.weights.W_O(layer))
                )
                one = one if bias is None or self.model.weights.unreadable else one + bias
            written.append(self.added(one, "attention_added", layer))
        return torch.stack(written), self.closed.stack("attn_out").cpu()

    def neurons(self) -> tuple[Tensor, Tensor]:
        written = []
        with torch.no_grad():
            for layer in self.layers:
                experts: Any = self.model.part("experts", layer)
                if experts is None:
                    one = self.model.require_part("mlp_out", layer)(self.closed[f"L{layer}.neurons"])
                else:
                    one = torch.einsum("bqen,emn->bqm", self.open[f"L{layer}.expert_neurons"], experts.down_proj)
                written.append(self.added(one, "mlp_added", layer))
        return torch.stack(written), self.closed.stack("mlp_out").cpu()

    def added(self, computed: Tensor, name: str, layer: int) -> Tensor:
        """What a sub-layer adds to the stream: what it computed, through its post-norm, whose scale is taken as it is."""
        if not self.model.adapter.post_norms:
            return computed.cpu()
        norm = Norm.of(self.model.require_part(name, layer))
        return norm.linear(computed, norm.scale(computed)).cpu()

    def middle(self) -> tuple[Tensor, Tensor]:
        return self.closed.stack("resid_pre") + self.closed.stack("attn_out"), self.closed.stack("resid_mid")

    def after(self) -> tuple[Tensor, Tensor]:
        return self.closed.stack("resid_mid") + self.closed.stack("mlp_out"), self.closed.stack("resid_post")

    def block(self) -> tuple[Tensor, Tensor]:
        before = self.closed.stack("resid_pre")
        return before + self.closed.stack("attn_out") + self.closed.stack("mlp_out"), self.closed.stack("resid_post")

    def total(self) -> tuple[Tensor, Tensor]:
        added = self.closed.stack("attn_out").double() + self.closed.stack("mlp_out").double()
        final = self.closed.stack("resid_post")[-1:]
        return self.closed.stack("resid_pre")[:1] + added.sum(dim=0, keepdim=True).to(final), final

    def joined(self) -> tuple[Tensor, Tensor]:
        if self.model.anatomy.layers == 1:
            return torch.zeros(1, 1), torch.zeros(1, 1)
        return self.closed.stack("resid_post")[:-1], self.closed.stack("resid_pre")[1:]

    def normed(self) -> tuple[Tensor, Tensor]:
        adapter, stream = self.model.adapter, self.closed[f"L{self.layers[-1]}.resid_post"]
        then = find(self.model.hf, adapter.final_then)
        with torch.no_grad():
            stream = self.model.hf.get_submodule(adapter.final_norm)(stream)
            return stream if then is None else then(stream), self.closed.final

    def padded(self, *, left: bool) -> tuple[Tensor, Tensor]:
        """The second sequence cut short and run beside the first must equal it run alone."""
        length = self.tokens.shape[1]
        kept = length - length // 3
        short = self.tokens[1:, :kept]
        filler = self.tokens[1:, kept:]
        row = torch.cat([filler, short] if left else [short, filler], dim=1)
        mask = torch.ones_like(self.tokens, dtype=torch.bool)
        where = slice(length - kept, None) if left else slice(0, kept)
        mask[1] = False
        mask[1, where] = True
        together = self.model.run(torch.cat([self.tokens[:1], row]), mask=mask)
        alone = self.model.run(short)
        return together.require_logits[1, where], alone.require_logits[0]

    def gradient(self) -> tuple[Tensor, Tensor]:
        done = self.model.run(self.tokens, record=["embed", "L0.pattern"], logits="last", grad=True)
        logits, pattern, arrived = done.require_logits, done["L0.pattern"], False
        if logits.requires_grad and pattern.requires_grad:
            flows = torch.autograd.grad(logits.float().mean(), [pattern], allow_unused=True)[0]
            arrived = flows is not None and bool(flows.abs().sum() > 0)
        return torch.tensor([[0.0 if arrived else 1.0]]), torch.zeros(1, 1)
