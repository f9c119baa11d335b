"""A Hugging Face causal language model, kept as it is, with one way to run, record and edit it."""

import threading
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from innerworks.errors import UnknownSite, UnsupportedModel, UsageError
from innerworks.model import attention
from innerworks.model.adapters import adapter_for
from innerworks.model.anatomy import Anatomy, anatomy_of
from innerworks.model.certificate import Certificate, certify
from innerworks.model.edit import Edit, Mean
from innerworks.model.run import Logits, Run, Watch, run
from innerworks.sites import Site

_LOCKS: WeakKeyDictionary[PreTrainedModel, threading.RLock] = WeakKeyDictionary()  # pyright: ignore[reportInvalidTypeForm]


class Model:
    """A causal LM under study.

    hf: an already loaded Hugging Face model (no second copy of its weights is made; it is put in eval mode).
    tokenizer: its tokenizer. name: what to call it in atlases. certified: check on this machine that what will be
    measured is what the model computes (`CertificateFailed` otherwise); takes about one short forward.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        name: str | None = None,
        certified: bool = True,
    ) -> None:
        refuse_unreadable(hf)
        self.adapter = adapter_for(hf)
        self.anatomy: Anatomy = anatomy_of(hf, self.adapter)
        self.hf = hf.eval()
        self._tokenizer = tokenizer
        self.name = name or getattr(hf.config, "_name_or_path", "") or type(hf).__name__
        self.lock = _LOCKS.setdefault(hf, threading.RLock())
        attention.install(hf)
        self.certificate: Certificate | None = certify(self) if certified else None

    def __repr__(self) -> str:
        a = self.anatomy
        size = f"{a.layers} layers x {a.heads} heads, d_model {a.d_model}, {a.parameters:,} parameters"
        return f"Model({self.name!r}: {a.family}, {size})"

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; raises where none was given."""
        if self._tokenizer is None:
            raise UsageError(f"{self.name} was wrapped without a tokenizer: give token ids, or Model(hf, tokenizer).")
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        """Where the first parameter lies."""
        return next(self.hf.parameters()).device

    def block(self, layer: int) -> nn.Module:
        """The Hugging Face module of one layer."""
        return self.hf.get_submodule(f"{self.adapter.blocks}.{layer}")

    def readout(self, final: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Logits of streams that have passed the final norm (`run.final`)."""
        return self.hf.get_submodule(self.adapter.unembedding)(final)

    def sites(self, kind: str) -> list[str]:
        """The sites of a kind, one per layer: `model.sites("pattern")`."""
        return [str(Site(layer=layer, kind=kind)) for layer in range(self.anatomy.layers)]

    def check(self, site: Site) -> None:
        """Raise UnknownSite where this model has no such place."""
        if site.feature is not None:
            raise UnknownSite(f"{site}: {self.name} has no sparse features; only the whole activation is there.")
        limits = (("layer", self.anatomy.layers), ("head", self.anatomy.heads), ("neuron", self.anatomy.neurons))
        for axis, count in limits:
            index = getattr(site, axis)
            if index is not None and not 0 <= index < count:
                raise UnknownSite(
                    f"{site}: {self.name} has {count} {axis}s{' per layer' * (axis != 'layer')}, numbered 0 to {count - 1}."
                )

    def tokenize(self, texts: str | Sequence[str]) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
        """Token ids and mask of texts, padded on the right; special tokens as the tokenizer itself adds them."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = [self.tokenizer(text)["input_ids"] for text in texts]
        if not ids or not all(ids):
            raise UsageError("There is no token in " + ("an empty list of texts." if not ids else f"{texts[ids.index([])]!r}."))
        length = max(map(len, ids))
        tokens = torch.tensor([one + [0] * (length - len(one)) for one in ids], device=self.device)
        lengths = torch.tensor([len(one) for one in ids], device=self.device)
        return tokens, torch.arange(length, device=self.device) < lengths[:, None]

    def run(
        self,
        tokens: Int[Tensor, "batch seq"] | str | Sequence[str],
        *,
        mask: Bool[Tensor, "batch seq"] | None = None,
        record: str | Iterable[str | Site] = (),
        edit: Sequence[Edit] = (),
        watch: Sequence[Watch] = (),
        logits: Logits | Bool[Tensor, "batch seq"] = "all",
        keep: str | None = None,
        resume: Run | None = None,
        grad: bool = False,
    ) -> Run:
        """Run the model once.

        tokens: ids, or text. mask: True at real tokens, for padded ids (left or right).
        record: sites to keep, `*` for every layer or head: `["L*.resid_post", "L5H3.pattern"]`; then `run["L5H3.pattern"]`.
        edit: `ablate(...)`, `patch(...)`; recordings see the edited activations. watch: (site, handler) pairs.
        logits: `all`, `last`, `none`, or a boolean `[batch, seq]` of the positions wanted.
        keep="resume" holds every block's output, so that `resume=that_run` later computes only from the first place that
        is edited, recorded or watched on; same tokens, equal result. grad: let gradients flow.
        """
        if not isinstance(tokens, Tensor):
            tokens, mask = self.tokenize(tokens)
        tokens = tokens.to(self.device)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(self.device, torch.bool)
        self._check_tokens(tokens, mask)
        if self.hf.training:
            raise UsageError(f"{self.name} is in training mode (dropout would be at work). Call model.hf.eval() first.")
        if resume is not None:
            self._check_resume(resume, tokens, mask)
        if isinstance(logits, Tensor) and (logits.dtype != torch.bool or logits.shape != tokens.shape):
            raise UsageError(
                f"logits= as a tensor is a boolean {tuple(tokens.shape)}, like the tokens; "
                f"got {logits.dtype} {tuple(logits.shape)}."
            )
        if keep not in (None, "resume"):
            raise UsageError(f"keep={keep!r}: the only thing to keep is 'resume'.")
        record = [record] if isinstance(record, str) else record
        record = [*record, *(self.sites("resid_post") if keep else ())]
        return run(self, tokens, mask, record=record, edit=edit, watch=watch, logits=logits, resume=resume, grad=grad)

    def mean(self, texts: Sequence[str], *, kinds: Sequence[str] = ("z",)) -> Mean:
        """Mean activations over texts, positions 1 and later: what `ablate(..., mean=...)` puts in a part's place."""
        if "pattern" in kinds:
            raise UsageError("Patterns have no mean over texts: their keys are other tokens in every text.")
        total: dict[str, Tensor] = {}
        rows = 0
        for text in texts:
            done = self.run(text, record=[site for kind in kinds for site in self.sites(kind)], logits="none")
            rows += done.tokens.shape[1] - 1
            for kind in kinds:
                total[kind] = total.get(kind, torch.zeros(())) + done.stack(kind)[:, 0, 1:].double().sum(dim=1).cpu()
        if rows == 0:
            raise UsageError("A mean needs texts of at least two tokens.")
        values = {kind: (x / rows).float() for kind, x in total.items()}
        return Mean(values=values, over=f"{len(texts)} texts, positions 1 and later")

    def _check_resume(self, resume: Run, tokens: Tensor, mask: Tensor) -> None:
        if resume.of.hf is not self.hf or not resume.clean:
            raise UsageError("resume= needs a run of this very model, without edits or watchers.")
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


def refuse_unreadable(hf: PreTrainedModel) -> None:
    """Refuse models whose weights are not here as plain numbers: offloaded, spread over devices, or quantised."""
    devices = {str(parameter.device) for parameter in hf.parameters()}
    if len(devices) > 1 or "meta" in devices:
        raise UnsupportedModel(
            f"{type(hf).__name__} lies on {', '.join(sorted(devices))}: one device is needed. "
            "Load it with device_map={'': 0}, or on the CPU."
        )
    if getattr(hf.config, "quantization_config", None) is not None:
        raise UnsupportedModel(f"{type(hf).__name__} is quantised. Load it without quantisation, or dequantise it first.")
