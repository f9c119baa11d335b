"""Streaming as a study of a scan: are a few sinks enough to go on past the window?

1. Documents of the confirmation half are put end to end, those of one domain together, into texts of several caches' length.
2. The window alone, four sinks and the window, and recomputation (`losses.py`), all texts side by side.
3. Generation past the window, with four sinks and without (`generation.py`).

Of models whose positions cannot be re-based (learned ones), and of corpora too short for such texts, only the reason is kept.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from innerworks.errors import UnsupportedModel, UsageError
from innerworks.findings import Finding
from innerworks.heads.streaming.generation import GENERATED, generation
from innerworks.heads.streaming.losses import BLOCK, DECIDING, StreamingLosses, StreamText, cost, streaming_losses
from innerworks.heads.streaming.rotation import own_window
from innerworks.heads.streaming.rows import findings, generation_findings
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units
from innerworks.text import Reading
from innerworks.text.reading import opening_tokens


@dataclass(frozen=True, kw_only=True)
class Effort:
    """cache: tokens that every way keeps. times: length of a text in caches. texts: how many at most. new: tokens generated."""

    cache: int
    times: int
    texts: int
    new: int


EFFORTS = {"standard": Effort(cache=64, times=4, texts=12, new=64), "full": Effort(cache=256, times=3, texts=20, new=128)}
SMALLEST = 16  # tokens of a cache in which a window says anything


class Streaming:
    """What are the first tokens worth when the others leave?"""

    name = "streaming"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """None: texts are streamed afterwards."""
        return []

    def measure(self, given: Given) -> Kept:
        """Losses by way, then generation."""
        effort, model = EFFORTS.get(given.depth), given.model
        if effort is None:
            return Kept(about={"not measured": f"{given.depth} has no time to read texts token by token"})
        cache = min(effort.cache, own_window(model) or effort.cache, (model.anatomy.max_positions or effort.cache * 4) // 4)
        if cache < SMALLEST:
            return Kept(about={"not measured": f"{model.name} sees so few tokens that a cache of {cache} has no window"})
        texts = joined(model, given.reading, length=max(effort.times * cache, cache + BLOCK + 1), most=effort.texts)
        if len(texts) < 2:
            says = f"the confirmation half gives {len(texts)} texts of {effort.times * cache} tokens"
            return Kept(about={"not measured": f"{says}: add documents"})
        try:
            kept = _losses(given, texts, cache) if given.saved is None or "texts" not in given.saved.arrays else given.saved
        except (UnsupportedModel, UsageError) as error:
            return Kept(about={"not measured": str(error)})
        given.save(kept)
        return _generation(given, kept, min(effort.new, (effort.times - 1) * cache)) if "new" not in kept.about else kept

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Losses by way, and the comparisons that claim A12 reads."""
        if "texts" not in kept.arrays:
            return list(before)
        rows = findings(losses_of(kept))
        if "new" in kept.about:
            divergence, repeats = ({way: _wide(kept, f"{name}/{way}") for way in GENERATED} for name in ("divergence", "repeats"))
            rows += generation_findings(divergence, repeats, kept.about["strata"], cache=kept.about["cache"])
        return [*before, *rows]


def joined(model: Model, reading: Reading, *, length: int, most: int) -> list[StreamText]:
    """Confirmation documents end to end, by the hash of their names; of each domain its first text, then its second."""
    try:
        opening, between = opening_tokens(model.tokenizer), model.tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    except UsageError:  # a model of token ids alone
        opening, between = (), []
    by_unit: dict[int, list[int]] = {}
    for window in reading.windows:
        by_unit.setdefault(window.unit, []).extend(window.tokens[len(opening) :])
    chosen = [(unit, one) for unit, one in enumerate(reading.units) if (one.material, one.half) == ("text", "confirmation")]
    chosen.sort(key=lambda pair: hashlib.sha256(pair[1].id.encode()).hexdigest())
    texts: list[tuple[int, StreamText]] = []
    for domain in sorted({one.stratum for _, one in chosen}):
        ids, tokens, rank = list[str](), list(opening), 0
        for unit, one in chosen:
            if one.stratum != domain:
                continue
            tokens += [*(between if ids else ()), *by_unit[unit]]
            ids.append(one.id)
            if len(tokens) >= length:
                texts.append((rank, StreamText(id="+".join(ids), stratum=domain, tokens=tuple(tokens[:length]))))
                ids, tokens, rank = [], list(opening), rank + 1
    texts.sort(key=lambda pair: pair[0])
    return [text for _, text in texts[:most]]


def losses_of(kept: Kept) -> StreamingLosses:
    """The losses as they were kept."""
    texts = [
        StreamText(id=id, stratum=stratum, tokens=tuple(tokens))
        for id, stratum, tokens in zip(kept.about["ids"], kept.about["strata"], kept.arrays["texts"].tolist(), strict=True)
    ]
    cache = kept.about["cache"]
    return StreamingLosses(
        by_way={way.name: _wide(kept, f"losses/{way.name}") for way in DECIDING},
        positions=tuple(range(cache, len(texts[0].tokens) - 1)),
        texts=tuple(texts),
        cache=cache,
    )


def _wide(kept: Kept, name: str) -> np.ndarray:
    return kept.arrays[name].astype(np.float64)


def _losses(given: Given, texts: Sequence[StreamText], cache: int) -> Kept:
    total = sum(cost(texts, DECIDING, cache=cache))
    losses = streaming_losses(
        given.model, texts, ways=DECIDING, cache=cache, progress=lambda done, _: given.step(done, total, "tokens streamed")
    )
    arrays = {f"losses/{way}": found.astype(np.float32) for way, found in losses.by_way.items()}
    about = {"cache": cache, "ids": [text.id for text in texts], "strata": [text.stratum for text in texts]}
    return Kept(arrays={**arrays, "texts": np.array([text.tokens for text in texts])}, about=about)


def _generation(given: Given, kept: Kept, new: int) -> Kept:
    prompts = torch.from_numpy(kept.arrays["texts"][:, : kept.about["cache"]])
    found = generation(
        given.model,
        prompts,
        new=new,
        seed=given.seed,
        progress=lambda done, total: given.step(done, total, "tokens generated"),
    )
    arrays = {f"{name}/{way}": getattr(found, name)[way] for name in ("tokens", "divergence", "repeats") for way in GENERATED}
    whole = {name: one.astype(np.float32) if one.dtype == np.float64 else one for name, one in arrays.items()}
    return Kept(arrays={**kept.arrays, **whole}, about={**kept.about, "new": new})
