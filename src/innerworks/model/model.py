"""A Hugging Face causal language model, kept as it is, with one way to run, record and edit it."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from innerworks.errors import UnknownSite, UnsupportedModel, UsageError, near_misses
from innerworks.model import attention, experts, transformer_lens
from innerworks.model.adapters import adapter_for
from innerworks.model.anatomy import Anatomy, anatomy_of, every_module, find
from innerworks.model.call import Place, Positions, current
from innerworks.model.certificate import Certificate, certify
from innerworks.model.each import run_each
from innerworks.model.edit import Edit, Mean, applies, editable, rows_of
from innerworks.model.edited import edited
from innerworks.model.peft import adapter_off
from innerworks.model.resume import first_token
from innerworks.model.run import Logits, Run, Watch, run, switches
from innerworks.model.tokens import tokenize
from innerworks.model.weights import Weights
from innerworks.sites import INPUTS, LAYER_KINDS, PARTS, Site

_LOCKS: WeakKeyDictionary[PreTrainedModel, threading.RLock] = WeakKeyDictionary()  # pyright: ignore[reportInvalidTypeForm]
OWN_CODE = ("q", "k", "v", "scores", *INPUTS)  # what attention code of a family's own does not show


class Model:
    """A causal LM under study.

    hf: an already loaded Hugging Face model (no second copy of its weights is made; it is put in eval mode).
    tokenizer: its tokenizer. name: what to call it in atlases. certified: check on this machine that what will be
    measured is what the model computes (`CertificateFailed` otherwise); takes a few short forwards.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        name: str | None = None,
        certified: bool = True,
    ) -> None:
        self.adapter = adapter_for(hf)
        self.anatomy: Anatomy = anatomy_of(hf, self.adapter)
        self.hf = hf.eval()
        self._tokenizer = tokenizer
        self.name = name or getattr(hf.config, "_name_or_path", "") or type(hf).__name__
        self.lock = _LOCKS.setdefault(hf, threading.RLock())
        if self.adapter.attention_code == "registry":
            attention.install(hf, self.config)
        self._refuse_hidden_patterns()
        mixtures = {layer: self.part("experts", layer) for layer in range(self.anatomy.layers)}
        experts.install(self.config, {layer: one for layer, one in mixtures.items() if one is not None})
        self.certificate: Certificate | None = certify(self) if certified else None

    def __repr__(self) -> str:
        a = self.anatomy
        size = f"{a.layers} layers x {a.heads} heads, d_model {a.d_model}, {a.parameters:,} parameters"
        return f"Model({self.name!r}: {a.family}, {size})"

    # --- what it is made of --------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; raises where none was given."""
        if self._tokenizer is None:
            raise UsageError(f"{self.name} was wrapped without a tokenizer: give token ids, or Model(hf, tokenizer).")
        return self._tokenizer

    @property
    def decoder(self) -> nn.Module:
        """The part that goes from token ids to the stream after the final norm."""
        return self.hf.get_submodule(self.adapter.decoder)

    @property
    def config(self) -> PretrainedConfig:
        """The configuration of the decoder (inside a multimodal wrapper, that of its text model)."""
        config = self.decoder.config
        assert isinstance(config, PretrainedConfig)
        return config

    @property
    def device(self) -> torch.device:
        """Where token ids go: where the first weight lies that is here at all."""
        here = (weight.device for weight in self.hf.parameters() if weight.device.type != "meta")
        return next(here, torch.device("cpu"))

    @property
    def quantised(self) -> str | None:
        """How its weights are quantised, if they are: then it can be run, recorded and edited, but not read weight by weight."""
        config = getattr(self.hf.config, "quantization_config", None)
        method = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
        return None if config is None else str(getattr(method, "value", method) or "some way")

    @property
    def blocks(self) -> list[nn.Module]:
        """The Hugging Face modules of the layers, in order."""
        return list(self.hf.get_submodule(self.adapter.blocks).children())

    def block(self, layer: int) -> nn.Module:
        """The Hugging Face module of one layer."""
        return self.hf.get_submodule(f"{self.adapter.blocks}.{layer}")

    def part(self, name: str, layer: int) -> nn.Module | None:
        """A module of a block by its name in the adapter (`attention_out`, `mlp_norm`, ...), or None where the block has none."""
        if name in ("attention_norm", "mlp_norm") and not self.anatomy.sums:  # a post-LN block's norms read nothing: they follow
            return None
        return find(self.block(layer), getattr(self.adapter, name))

    def require_part(self, name: str, layer: int) -> nn.Module:
        """The same, raising UnsupportedModel where the block has none."""
        part = self.part(name, layer)
        if part is None:
            raise UnsupportedModel(f"{self.name} has no {name} in layer {layer}.")
        return part

    def norm_module(self, kind: str, layer: int) -> nn.Module:
        """The module behind `attn_norm_scale`, `mlp_norm_scale` and `norm_scale`."""
        if kind == "norm_scale":
            return self.hf.get_submodule(self.adapter.final_norm)
        return self.require_part({"attn_norm_scale": "attention_norm", "mlp_norm_scale": "mlp_norm"}[kind], layer)

    @property
    def weights(self) -> Weights:
        """Its weights as matrices that read left to right: `model.weights.OV(5, 3)`."""
        return Weights(self)

    def readout(self, final: Float[Tensor, "... d_model"], *, capped: bool = True) -> Float[Tensor, "... vocab"]:
        """Logits of streams that have passed the final norm (`run.final`). capped=False: before any soft cap."""
        unembedding = self.hf.get_submodule(self.adapter.unembedding)
        logits = unembedding(final)
        cap = self.softcap if capped else None
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @property
    def softcap(self) -> float | None:
        """The bound that the logits are softly kept within, if any."""
        return getattr(self.config, self.adapter.softcap, None) if self.adapter.softcap else None

    # --- places --------------------------------------------------------------------------------------------------

    def sites(self, kind: str) -> list[str]:
        """The sites of a kind, one per layer that has it: `model.sites("pattern")`."""
        if kind not in LAYER_KINDS:
            raise UnknownSite(f"{kind!r} is no activation of layers.{near_misses(kind, LAYER_KINDS)}")
        layers = [layer for layer in range(self.anatomy.layers) if self.lacks(kind, layer) is None]
        return [str(Site(layer=layer, kind=kind)) for layer in layers]

    def place(self, site: Site) -> Place:
        """Where a site passes: the kind of activation and the layer (the final norm counts as the layer after the last)."""
        if site.kind == "embed":
            return "resid_pre", 0
        if site.kind == "norm_scale":
            return "norm_scale", self.anatomy.layers
        if site.layer is None:
            raise UnknownSite(f"{site} is no activation that passes through the blocks.")
        return site.activation, site.layer

    def site(self, place: Place) -> str:
        """The name of a place."""
        kind, layer = place
        return kind if kind == "norm_scale" else str(Site(layer=layer, kind=kind))

    def lacks(self, kind: str, layer: int) -> str | None:
        """Why there is no such activation in a layer of this model, or None where there is."""
        a, mixture = self.anatomy, self.part("experts", layer) is not None
        if kind in OWN_CODE and self.adapter.attention_code == "own":
            return f"{a.family} computes attention in code of its own, which shows z and the pattern only"
        if kind == "resid_mid" and a.parallel:
            return "attention and feed-forward read the same stream, so there is none between them. Use resid_pre"
        if kind == "resid_mid" and not a.sums:
            return "the stream is normed after each addition. Use resid_pre and resid_post"
        if kind == "neurons" and mixture:
            return f"its feed-forward is a mixture of experts. Use L{layer}.expert_neurons or L{layer}E0N0"
        if kind == "expert_neurons" and not mixture:
            return f"its feed-forward is no mixture of experts. Use L{layer}.neurons or L{layer}N0"
        if kind == "attn_norm_scale" and self.part("attention_norm", layer) is None:
            return "its attention reads the stream without a norm"
        if kind == "mlp_norm_scale" and self.part("mlp_norm", layer) is None:
            shared = "its feed-forward reads what attention's norm returns. Use attn_norm_scale"
            return shared if a.parallel else "its feed-forward reads the stream without a norm"
        return None

    def check(self, site: Site) -> None:
        """Raise UnknownSite where this model has no such place."""
        if site.feature is not None:
            raise UnknownSite(f"{site}: {self.name} has no sparse features; only the whole activation is there.")
        if site.kind == "norm_scale" and find(self.hf, self.adapter.final_norm) is None:
            raise UnknownSite(f"{self.name} has no final norm.")
        a = self.anatomy
        neurons = a.expert_neurons if site.expert is not None else a.neurons
        if site.layer is not None and site.layer < a.layers and site.kind != "model":
            narrowed = any(getattr(site, part) is not None for part in PARTS)
            reason = self.lacks(site.activation, site.layer) if site.kind or narrowed else None
            if reason is not None:
                raise UnknownSite(f"{site} is not in {self.name}: {reason}.")
        limits = (("layer", a.layers), ("head", a.heads), ("expert", a.experts), ("neuron", neurons), ("dimension", a.d_model))
        for axis, count in limits:
            index = getattr(site, axis)
            if index is not None and not 0 <= index < count:
                per = {"layer": "", "neuron": " per expert" if site.expert is not None else " per layer"}.get(axis, " per layer")
                raise UnknownSite(f"{site}: {self.name} has {count} {axis}s{per}, numbered 0 to {count - 1}.")

    def check_editable(self, site: Site) -> None:
        """Raise UnknownSite where this model has no such place, or where it can only be looked at."""
        editable(site)
        self.check(site)
        if site.activation == "pattern" and self.adapter.attention_code == "own":
            raise UnknownSite(
                f"{site} cannot be edited: {self.anatomy.family} computes attention in code of its own. "
                f"Edit L{site.layer}.z instead."
            )

    # --- running -------------------------------------------------------------------------------------------------

    def tokenize(
        self, texts: str | Sequence[str], *, bos: bool | None = None, chat: bool = False
    ) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
        """Token ids and mask of texts, padded on the right.

        bos: None leaves special tokens to the tokenizer, as it adds them itself; True puts its BOS token in front where it is
        not, False takes it away. chat: wrap each text as a user's message in the tokenizer's chat template; never by default.
        """
        return tokenize(self.tokenizer, texts, bos=bos, chat=chat, device=self.device)

    def run(
        self,
        tokens: Int[Tensor, "batch seq"] | str | Sequence[str],
        *,
        mask: Bool[Tensor, "batch seq"] | None = None,
        record: str | Site | Iterable[str | Site] = (),
        edit: Edit | Sequence[Edit] = (),
        watch: Sequence[Watch] = (),
        logits: Logits | Sequence[int] | Bool[Tensor, "batch seq"] = "all",
        keep: str | None = None,
        resume: Run | None = None,
        suffix: bool = False,
        grad: bool = False,
        to: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Run:
        """Run the model once.

        tokens: ids, or text. mask: True at real tokens, for padded ids (left or right).
        record: sites to keep, `*` for every layer or head: `["L*.resid_post", "L5H3.pattern"]`; then `run["L5H3.pattern"]`.
        to, dtype: where and how recordings are kept. edit: `ablate(...)`, `patch(...)`, `steer(...)`, ...; recordings see the
        edited activations. watch: (site, handler) pairs.
        logits: `all`, `last`, `none`, positions counted from each text's first token, or a boolean `[batch, seq]`.
        keep="resume" holds every block's output, keys and values, so that `resume=that_run` later computes only from the first
        layer that is edited, recorded or watched on: same tokens, equal result. suffix=True computes in addition only from the
        first edited token on: equal to about 1e-4 in float32, while in bfloat16 baselines should take the same way.
        grad: let gradients flow; see `Run.gradient`.
        """
        if not isinstance(tokens, Tensor):
            if mask is not None:
                raise UsageError("mask= is for token ids: of texts, it follows from their lengths.")
            tokens, mask = self.tokenize(tokens)
        tokens = tokens.to(self.device)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(self.device, torch.bool)
        self._check_tokens(tokens, mask)
        self._check_quiet()
        edits, positions = list(edit) if isinstance(edit, Sequence) else [edit], Positions.of(mask)
        for one in edits:
            if not applies(one, positions):
                raise UsageError(
                    f"{one.says}: no token lies at its positions (None is every position but 0), so nothing is edited."
                )
        start = 0
        if resume is not None:
            self._check_resume(resume, tokens, mask)
            start = first_token(edits, positions) if suffix else 0
        elif suffix:
            raise UsageError("suffix=True needs resume=, a run made with keep='resume' on the same tokens.")
        if suffix and keep is not None:
            raise UsageError("suffix=True computes only part of the text: keep='resume' needs a run of all of it.")
        if keep not in (None, "resume"):
            raise UsageError(f"keep={keep!r}: the only thing to keep is 'resume'.")
        return run(
            self,
            tokens,
            mask,
            record=[record] if isinstance(record, str | Site) else record,
            edit=edits,
            watch=watch,
            logits=wanted_logits(logits, mask),
            keep=keep is not None,
            resume=resume,
            start=start,
            grad=grad,
            to=to,
            dtype=dtype,
        )

    def run_each(
        self,
        edits: Iterable[Edit | Sequence[Edit]],
        *,
        resume: Run,
        record: str | Site | Iterable[str | Site] = (),
        logits: Logits | Sequence[int] | Bool[Tensor, "batch seq"] = "last",
        suffix: bool = False,
        rows: int = 64,
    ) -> Iterator[Run]:
        """Run the model once per edit (or group of edits), each resumed from a clean run; those that begin at one layer together.

        edits: alternatives, for instance one `ablate` per head; runs come back in their order. rows: texts computed at once,
        which bounds memory. The other arguments are those of `run`.
        """
        self._check_quiet()
        self._check_resume(resume, resume.tokens, resume.mask)
        groups = [list(one) if isinstance(one, Sequence) else [one] for one in edits]
        return run_each(
            self,
            groups,
            clean=resume,
            record=[record] if isinstance(record, str | Site) else list(record),
            logits=wanted_logits(logits, resume.mask),
            suffix=suffix,
            rows=rows,
        )

    @contextmanager
    def edited(self, edit: Edit | Sequence[Edit]) -> Iterator[PreTrainedModel]:
        """Keep edits in force for code that is not ours: `with model.edited(edits) as hf: hf.generate(...)`.

        Positions count from each text's first token and go on through what is generated. Edits of keys and values hold at
        every step, cache or no cache; `k_in` and `v_in` need use_cache=False. Raises on leaving if an edit never applied. Only
        the thread that entered is edited: start others with `contextvars.copy_context().run`.
        """
        self._check_still()
        with edited(self, list(edit) if isinstance(edit, Sequence) else [edit]):
            yield self.hf

    def adapter_off(self) -> AbstractContextManager[None]:
        """What would the base do? Inside the block, the LoRA adapters of the model are off."""
        return adapter_off(self)

    run_with_cache = transformer_lens.run_with_cache
    run_with_hooks = transformer_lens.run_with_hooks

    def mean(self, texts: str | Sequence[str], *, kinds: Sequence[str] = ("z",)) -> Mean:
        """Mean activations over texts, positions 1 and later: what `ablate(..., mean=...)` puts in a part's place."""
        over_keys = [kind for kind in kinds if kind in ("pattern", "scores")]
        if over_keys:
            raise UsageError(f"There is no mean {over_keys[0]} over texts: its keys are other tokens in every text.")
        texts = [texts] if isinstance(texts, str) else texts
        for kind in kinds:
            if not self.sites(kind):
                raise UnknownSite(f"There is no {kind} in {self.name}: {self.lacks(kind, 0)}.")
        total: dict[str, Tensor] = {}
        rows = 0
        for text in texts:
            done = self.run(text, record=[site for kind in kinds for site in self.sites(kind)], logits="none")
            rows += done.tokens.shape[1] - 1
            for kind in kinds:
                total[kind] = total.get(kind, torch.zeros(())) + self._by_layer(done, kind)
        if rows == 0:
            raise UsageError("A mean needs texts of at least two tokens.")
        values = {kind: (x / rows).float() for kind, x in total.items()}
        return Mean(values=values, over=f"{len(texts)} texts, positions 1 and later")

    def _by_layer(self, done: Run, kind: str) -> Tensor:
        """One text's sum over positions 1 and later, `[layer, ...]`; zero in layers that have no such activation."""
        summed = {
            layer: done.recorded[name, layer][0, 1:].double().sum(dim=0).cpu() for name, layer in done.recorded if name == kind
        }
        empty = torch.zeros_like(next(iter(summed.values())))
        return torch.stack([summed.get(layer, empty) for layer in range(self.anatomy.layers)])

    # --- refusals ------------------------------------------------------------------------------------------------

    def _refuse_hidden_patterns(self) -> None:
        """Families with attention code of their own hand out their probabilities in the eager implementation only."""
        implementation = self.config._attn_implementation
        if self.adapter.attention_code == "own" and implementation != "eager":
            raise UnsupportedModel(
                f"{type(self.hf).__name__} runs attn_implementation={implementation!r}, which shows no patterns. "
                "Load it with attn_implementation='eager'."
            )

    def _check_quiet(self) -> None:
        self._check_still()
        if current() is not None:
            raise UsageError("model.run inside model.edited would run without those edits: give them as edit=, outside.")

    def _check_still(self) -> None:
        if any(module.training for module in every_module(self.hf)):
            raise UsageError(
                f"{self.name} is in training mode, at least in parts (dropout or gradient checkpointing would be at work). "
                "Call model.hf.eval() first."
            )

    def _check_resume(self, resume: Run, tokens: Tensor, mask: Tensor) -> None:
        if resume.of.hf is not self.hf or not resume.clean:
            raise UsageError("resume= needs a run of this very model, without edits or watchers.")
        if resume.streams is None:
            raise UsageError("resume= needs a run made with keep='resume', on the same tokens.")
        if resume.switches != switches(self.hf):
            raise UsageError("resume= was made with the model's adapter switched otherwise.")
        if not (torch.equal(resume.tokens, tokens) and torch.equal(resume.mask, mask)):
            raise UsageError("resume= was made on other tokens, or with another mask.")

    def _check_tokens(self, tokens: Tensor, mask: Tensor) -> None:
        if tokens.ndim != 2 or tokens.shape != mask.shape:
            raise UsageError(f"tokens must be [batch, seq], and mask alike; got {tuple(tokens.shape)} and {tuple(mask.shape)}.")
        if tokens.numel() == 0:
            raise UsageError("There are no tokens to run on.")
        if not bool(mask.any(dim=-1).all()):
            raise UsageError("mask is False everywhere in some sequence: leave that sequence out.")
        longest, limit = int(mask.sum(dim=-1).max()), self.anatomy.max_positions
        if limit is not None and longest > limit:
            raise UsageError(
                f"A sequence of {longest} tokens is longer than the {limit} positions of {self.name}. Cut it into windows."
            )
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.anatomy.vocab:
            raise UsageError(f"Token ids must lie in 0..{self.anatomy.vocab - 1}; got {int(tokens.min())}..{int(tokens.max())}.")


def wanted_logits(logits: Logits | Sequence[int] | Tensor, mask: Bool[Tensor, "batch seq"]) -> Logits | Bool[Tensor, "batch seq"]:
    """Turn what a person asks for into what a run understands: a word, or a boolean per token."""
    if isinstance(logits, str):
        return logits
    if isinstance(logits, Tensor):
        if logits.dtype != torch.bool or logits.shape != mask.shape:
            raise UsageError(
                f"logits= as a tensor is a boolean {tuple(mask.shape)}, like the tokens; "
                f"got {logits.dtype} {tuple(logits.shape)}."
            )
        return logits.to(mask.device)
    return rows_of(list(logits), Positions.of(mask)) & mask
