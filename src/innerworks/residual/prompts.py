"""One prompt, looked at: which token each layer would name at each position, and which parts gave a token its logit.

>>> from innerworks import residual                                            # doctest: +SKIP
>>> residual.lens(model, "The capital of France is")                           # doctest: +SKIP
>>> residual.shares(model, "The capital of France is", " Paris", " Rome")      # doctest: +SKIP

A notebook shows what they return; `rich.print` prints it. The numbers are those of `innerworks.model.readout`.
"""

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.errors import UsageError
from innerworks.model.model import Model
from innerworks.model.readout import Top, attribute, top
from innerworks.model.readout.attribution import By
from innerworks.residual.tuned_lens import TunedLens
from innerworks.show.prompt import Guess, Named, Place, PromptLens, PromptShares, Share
from innerworks.show.prompt.shares import Kind

GUESSES = 5  # that are told of each place, at least
PARTS = 20


def lens(model: Model, prompt: str, *, kind: str | None = None, k: int = 1, tuned: TunedLens | None = None) -> PromptLens:
    """Which token would each layer name at each position of a prompt, how likely is it, and how undecided is the layer?

    kind: the stream that is read: resid_post (where not said), resid_pre or resid_mid. k: tokens shown in each cell. tuned: read
    it with this tuned lens, which knows one kind of stream; else with the logit lens.

    Returns: probabilities, and entropies in nats. An untrained model's layers are all near log(vocab) nats.
    """
    if tuned is not None and kind not in (None, tuned.kind):
        raise UsageError(f"This tuned lens was trained on {tuned.kind}: it cannot read {kind}.")
    kind = tuned.kind if tuned is not None else kind or "resid_post"
    tokens, _ = model.tokenize(prompt)
    found = top(model, tokens, k=max(k, min(GUESSES, model.anatomy.vocab)), kind=kind, translate=tuned)
    return PromptLens(
        model=model.name,
        lens="logit lens" if tuned is None else "tuned lens",
        tokens=tuple(_text(model, token) for token in tokens[0].tolist()),
        sites=found.sites,
        places=tuple(tuple(_places(model, found, layer)) for layer in range(len(found.sites))),
        shown=k,
        notes=(FIRST,) if tuned is None else (NOT_TRAINED_ON, _left(tuned)),
    )


FIRST = "The first token is an outlier in most models: what is read there means little."
NOT_TRAINED_ON = "The first token is an outlier in most models, and no lens is trained on it: what is read there means little."


def _left(tuned: TunedLens) -> str:
    """Which layers a tuned lens leaves as they are."""
    left = [one.site.partition(".")[0] for one in tuned.held_out if not one.tuned]
    trained = f"Trained on {tuned.trained_on['positions']:,} positions of {tuned.trained_on['corpus']}"
    return f"{trained}; as in the logit lens: {', '.join(left) or 'none'}."


def _places(model: Model, found: Top, layer: int) -> list[Place]:
    """One layer at each position."""
    parts = (found.tokens, found.probability, found.logits)
    rows = zip(*(part[layer, 0].tolist() for part in parts), found.entropy[layer, 0].tolist(), strict=True)
    return [
        Place(
            guesses=tuple(
                Guess(id=token, text=_text(model, token), probability=probability, logit=logit)
                for token, probability, logit in zip(ids, probabilities, logits, strict=True)
            ),
            entropy=entropy,
        )
        for ids, probabilities, logits, entropy in rows
    ]


def shares(
    model: Model, prompt: str, answer: str | int, foil: str | int | None = None, *, by: By = "component", n: int = PARTS
) -> PromptShares:
    """Which parts of the model gave the answer its logit after a prompt (less that of the foil), and how much each?

    answer, foil: a string that is one token, or its id. by: component, head, neuron or source, as for `readout.attribute`,
    which does the work. n: how many of the strongest parts are listed; the sums are over all.

    Returns: shares in logits, which add up to the model's own logit (difference) before any soft cap.
    """
    if n < 1:
        raise UsageError(f"n={n}: at least one part.")
    tokens, _ = model.tokenize(prompt)
    found = attribute(model, tokens, answer, foil, by=by)
    if found.foil is not None and torch.equal(found.answer, found.foil):
        raise UsageError(f"The foil is the answer itself ({_text(model, int(found.answer[0]))!r}): nothing lies between them.")
    table = found.frame()
    strongest = table.sort(pl.col("value").abs(), descending=True, maintain_order=True).head(n)
    kinds = table.group_by("component", maintain_order=True).agg(parts=pl.len(), value=pl.col("value").sum())
    final = model.run(tokens, logits="none").final[0, -1]
    with torch.no_grad():
        logits, capped = (model.readout(final, capped=cap).double() for cap in (False, True))
    return PromptShares(
        model=model.name,
        tokens=tuple(_text(model, token) for token in tokens[0].tolist()),
        by=by,
        answer=_named(model, int(found.answer[0]), logits, capped),
        foil=None if found.foil is None else _named(model, int(found.foil[0]), logits, capped),
        parts=tuple(Share(**row) for row in strongest.select("component", "site", "value", "source").to_dicts()),
        kinds=tuple(Kind(**row) for row in kinds.to_dicts()),
        exact=float(found.exact[0]),
    )


def _named(model: Model, token: int, logits: Float[Tensor, " vocab"], capped: Float[Tensor, " vocab"]) -> Named:
    return Named(
        id=token,
        text=_text(model, token),
        logit=float(logits[token]),
        probability=float(capped.softmax(dim=0)[token]),
        rank=1 + int((logits > logits[token]).sum()),
    )


def _text(model: Model, token: int) -> str:
    return str(model.tokenizer.decode([token]))
