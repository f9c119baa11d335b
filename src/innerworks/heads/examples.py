"""Real text on which labelled heads show what they do, and what they write there.

1. Of each kind the strongest labels (`best_labels`); every kind, whether seen in patterns, by weights or by ablation.
2. Where to look: for kinds of patterns the confirmation document on which the head does it most; for the others a few
   confirmation documents (a domain's own for its heads, those with most arcs for a relation, ordinal lists for successors). One
   forward per document, whatever the number of heads.
3. Which stretch: where most lies *on target*: attention on what the kind looks at, along a relation's arcs; for heads that copy
   or suppress the direct effect on the tokens they look at (`circuits/direct.py`); for kinds without targets all attention off
   the first token. The *query* is the row of the stretch with most on target.
4. What it writes: the head's own output at the query, through the final norm (its scale held) and the unembedding, less the mean
   over the vocabulary: the tokens raised and lowered most. It does not say what later layers make of it.
5. By weights: for copying kinds the sampled tokens whose own logit a circuit changes most, for successors a class of ordinals;
   for each the token of the whole vocabulary that is changed most.

An example illustrates; nothing is decided by it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.atlas import Example
from innerworks.errors import UsageError
from innerworks.findings import Finding
from innerworks.heads import masks
from innerworks.heads.circuits import ordinals
from innerworks.heads.circuits.copying import sample
from innerworks.heads.circuits.direct import post_scale, value_site, values_of
from innerworks.heads.circuits.embedding import TOKENS_AT_ONCE, as_read, effective, mean_unembedding, refusal, unembedding
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import KINDS, MEASURES
from innerworks.model import Model
from innerworks.model.run import Run
from innerworks.sites import Site
from innerworks.text import Reading
from innerworks.text.reading import Window, batch_of
from innerworks.text.repeats import ordinary_tokens
from innerworks.text.syntax import Arc

SPAN = 40  # tokens shown
MOST = 4  # examples per kind
TEXTS = 4  # documents that are tried for a kind whose best one is not known
WRITTEN = 5  # tokens named as raised, as lowered, as rows
SIGNS = {"copying": 1.0, "anti_copying": -1.0, "copy_suppression": -1.0}

Label = tuple[str, str]  # (behaviour, site)


@dataclass(frozen=True)
class Text:
    """A document to look at."""

    unit: str
    tokens: tuple[int, ...]
    window: Window | None = None


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The part of a text on which a head does most, and what it writes at the query."""

    on_target: float
    unit: str
    tokens: tuple[int, ...]
    pattern: Float[Tensor, "query key"]
    query: int
    written: Float[Tensor, " d_model"] | None


def best_labels(findings: Sequence[Finding], *, most: int = MOST) -> list[Label]:
    """Return the strongest labels of every kind: the highest rungs first, then the largest effects. Pairs are none."""
    best: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
    for one in findings:
        if one.chapter == "heads" and one.rung >= 1 and one.index is not None and one.target is None:
            best[one.behaviour].setdefault(one.site, (-one.rung, -one.effect))
    return [(behaviour, site) for behaviour, sites in best.items() for site in sorted(sites, key=lambda site: sites[site])[:most]]


def shown(model: Model, reading: Reading, table: HeadsByUnit, labels: Sequence[Label]) -> list[Example]:
    """One example for each label; see the top of this file."""
    wanted: dict[Text, list[Label]] = defaultdict(list)
    for label in labels:
        for text in _texts(model, reading, table, label):
            wanted[text].append(label)
    best: dict[Label, Stretch] = {}
    for text, here in wanted.items():
        for label, found in _look(model, text, here):
            if label not in best or found.on_target > best[label].on_target:
                best[label] = found
    return _examples(model, [(label, best[label]) for label in labels if label in best])


# --- which text ---------------------------------------------------------------------------------------------------


def _texts(model: Model, reading: Reading, table: HeadsByUnit, label: Label) -> list[Text]:
    behaviour, site = label[0], Site.parse(label[1])
    if behaviour in KINDS:
        measure = KINDS[behaviour].measure
        units = table.measured(measure, "text", "confirmation")
        total = table.total[units, MEASURES.index(measure), site.layer, site.head]
        return [_first_window(reading, int(np.flatnonzero(units)[total.argmax()]))]
    if behaviour == "successor":
        kept, _ = ordinals.classes(model.tokenizer)
        rows = [row for row in ordinals.rows(model.tokenizer, kept) if row.half == "confirmation"]
        first = {row.kind: row for row in reversed(rows)}
        return [Text(f"a list of {kept[row.kind].title}", row.tokens) for row in list(first.values())[:TEXTS]]
    domain = behaviour.removeprefix("domain:") if behaviour.startswith("domain:") else None
    units = [i for i, unit in enumerate(reading.units) if unit.material == "text" and unit.half == "confirmation"]
    own = [i for i in units if domain is not None and reading.units[i].stratum == domain]
    if behaviour.startswith("syntactic:"):
        arcs = {i: len(_arcs(behaviour, _first_window(reading, i).window or reading.windows[0])) for i in units}
        own = sorted((i for i in units if arcs[i]), key=lambda i: -arcs[i])
    strata = list({reading.units[i].stratum: i for i in reversed(units)}.values())
    return [_first_window(reading, i) for i in (own or strata)[:TEXTS]]


def _first_window(reading: Reading, unit: int) -> Text:
    window = next(window for window in reading.windows if window.unit == unit)
    return Text(reading.units[unit].id, window.tokens, window)


# --- which stretch of it ------------------------------------------------------------------------------------------


def _look(model: Model, text: Text, labels: Sequence[Label]) -> Iterable[tuple[Label, Stretch]]:
    """Run a text once, and find the best stretch for each label."""
    read = refusal(model) is None
    sites = [Site.parse(site) for _, site in labels]
    layers = sorted({site.layer for site in sites if site.layer is not None})
    copies = read and any(behaviour in SIGNS for behaviour, _ in labels)
    kinds = ("pattern", *(("z",) if read else ()), *((value_site(model),) if copies else ()))
    last = Site(layer=model.anatomy.layers - 1, kind="resid_post")
    record = [last, *(Site(layer=layer, kind=kind) for layer in layers for kind in kinds)]
    run = model.run(torch.tensor([text.tokens]), record=list(dict.fromkeys(record)), logits="none")
    norm = model.weights.final_norm if read else None
    scale = torch.ones(len(text.tokens)) if norm is None else norm.scale(run[last][0]).float().cpu()
    for (behaviour, name), site in zip(labels, sites, strict=True):
        pattern = run[Site(layer=site.layer, head=site.head, kind="pattern")][0].float().cpu()
        on_target = _on_target(model, run, text, behaviour, site, pattern, scale)
        whole = behaviour in KINDS and KINDS[behaviour].null == "other column"
        start = 0 if whole else best_start(on_target)
        part = slice(start, start + SPAN)
        rows = on_target[part, part].sum(dim=1)
        query = len(rows) - 1 if behaviour == "successor" else int(rows[1:].argmax()) + 1 if len(rows) > 1 else 0
        yield (
            (behaviour, name),
            Stretch(
                on_target=float(on_target[part, part].sum()),
                unit=text.unit,
                tokens=text.tokens[part],
                pattern=pattern[part, part],
                query=query,
                written=_written(model, run, site, start + query, scale) if read else None,
            ),
        )


def _on_target(
    model: Model, run: Run, text: Text, behaviour: str, site: Site, pattern: Tensor, scale: Tensor
) -> Float[Tensor, "query key"]:
    """How much of what a head does at each query and key is what its kind does."""
    if behaviour in KINDS and text.window is not None:
        return pattern * _targets(behaviour, text.window)
    if behaviour in SIGNS and refusal(model) is None:
        return (SIGNS[behaviour] * _on_attended(model, run, text, site, pattern) / scale[:, None]).clamp(min=0)
    if behaviour.startswith("syntactic:") and text.window is not None and _arcs(behaviour, text.window):
        return pattern * _along(behaviour, text.window)
    off_first = pattern.clone()
    off_first[:, 0] = 0.0
    return off_first


def _targets(behaviour: str, window: Window) -> Tensor:
    measure, length = KINDS[behaviour].measure, len(window.tokens)
    if measure.startswith("offset"):
        return torch.eye(length).roll(-int(measure.removeprefix("offset_")), dims=1).tril()
    if measure.startswith("column"):
        return (torch.arange(length) == int(measure.removeprefix("column_"))).float().expand(length, length)
    return masks.TARGETS[measure](batch_of([window], "text", "", "confirmation"))[0].float()


def _arcs(behaviour: str, window: Window) -> list[Arc]:
    """The arcs of one relation among a window's tokens, where a reading knows them."""
    return [arc for arc in getattr(window, "arcs", ()) if arc.behaviour == behaviour]


def _along(behaviour: str, window: Window) -> Tensor:
    """The words that stand in a relation to each query."""
    right = torch.zeros(len(window.tokens), len(window.tokens))
    for arc in _arcs(behaviour, window):
        for start, end in arc.targets:
            right[arc.query, start:end] = 1.0
    return right


def _on_attended(model: Model, run: Run, text: Text, site: Site, pattern: Tensor) -> Float[Tensor, "query key"]:
    """What a head adds to the logit of each token that it looks at, before the final scale; nothing at the first token."""
    layer, head = site.layer or 0, site.head or 0
    values = values_of(model, layer, run[Site(layer=layer, kind=value_site(model))])[0, :, head].float()
    toward = unembedding(model, torch.tensor(text.tokens, device=model.device)).mT - mean_unembedding(model)  # key d_model
    output = model.weights.W_O(layer, fold=True)[head].to(toward)
    per_key = ((values.to(toward) @ output) * toward).sum(dim=1).cpu()
    per_key[0] = 0.0
    post = post_scale(model, layer, run[Site(layer=layer, kind="z")])[0].float().cpu()
    return pattern * per_key / post[:, None]


def best_start(on_target: Tensor) -> int:
    """Where the stretch begins within which most lies on target, both ends inside it."""
    starts = range(max(1, len(on_target) - SPAN + 1))
    return max(starts, key=lambda start: float(on_target[start : start + SPAN, start : start + SPAN].sum()))


# --- what it writes -----------------------------------------------------------------------------------------------


def _written(model: Model, run: Run, site: Site, query: int, scale: Tensor) -> Float[Tensor, " d_model"]:
    """What the head adds to the stream at one token, over the scales that divide it."""
    layer, head = site.layer or 0, site.head or 0
    z = run[Site(layer=layer, kind="z")][0, query].float()
    output = model.weights.W_O(layer, fold=True)[head].to(z)
    return (z[head] @ output / post_scale(model, layer, z)).cpu() / scale[query]


@dataclass(frozen=True)
class _ByWeights:
    """What circuits write for some tokens: the tokens read, and by which sign the token changed most is chosen."""

    read: tuple[int, ...]
    written: Float[Tensor, "row d_model"]
    sign: float


def _by_weights(model: Model, labels: Iterable[Label]) -> dict[Label, _ByWeights]:
    """For each label of a kind that weights show: a few tokens, and what the head's circuit writes for them."""
    wanted = [label for label in labels if label[0] in (*SIGNS, "successor")]
    if not wanted or refusal(model) is not None:
        return {}
    ids = {behaviour: _read(model, behaviour) for behaviour in {behaviour for behaviour, _ in wanted}}
    brought = {behaviour: effective(model, torch.tensor(tokens)) for behaviour, tokens in ids.items() if tokens}
    found: dict[Label, _ByWeights] = {}
    for behaviour, name in wanted:
        if behaviour not in brought:
            continue
        site = Site.parse(name)
        layer, head = site.layer or 0, site.head or 0
        through = "raw" if layer == 0 else "mlp0" if behaviour == "successor" else "whole"
        read = as_read(model, brought[behaviour][through])
        read = read if behaviour == "successor" else read - read.mean(dim=0)
        circuit = model.weights.OV(layer, head, fold=True)
        written = ((read @ circuit.A.to(read)) @ circuit.B.to(read)).float()
        sign, which = SIGNS.get(behaviour, 1.0), torch.arange(len(written))[:WRITTEN]
        if behaviour in SIGNS:
            own = (written.mT * (unembedding(model, torch.tensor(ids[behaviour], device=written.device)))).sum(dim=0)
            which = (sign * own).topk(min(WRITTEN, len(own))).indices.cpu()
        found[behaviour, name] = _ByWeights(tuple(ids[behaviour][int(i)] for i in which), written[which].cpu(), sign)
    return found


def _read(model: Model, behaviour: str) -> list[int]:
    """The tokens that circuits are given."""
    try:
        if behaviour == "successor":
            kept, _ = ordinals.classes(model.tokenizer)
            return list(kept[0].tokens) if kept else []
        return sample(ordinary_tokens(model.tokenizer, model.anatomy.vocab)).tolist()
    except UsageError:
        return []


def _examples(model: Model, found: Sequence[tuple[Label, Stretch]]) -> list[Example]:
    """Put everything into words: one pass over the unembedding for all that was written."""
    rows = _by_weights(model, [label for label, _ in found])
    vectors = [one.written for _, one in found if one.written is not None]
    vectors += [vector for one in rows.values() for vector in one.written]
    logits = iter(_logits(model, torch.stack(vectors)) if vectors else ())
    direct = [next(logits) if one.written is not None else None for _, one in found]
    by_weights = {label: tuple(_row(model, token, next(logits), one.sign) for token in one.read) for label, one in rows.items()}
    return [
        Example(
            behaviour=label[0],
            site=label[1],
            unit=one.unit,
            tokens=tuple(_word(model, token) for token in one.tokens),
            pattern=one.pattern.numpy(force=True),
            query=one.query if changed is not None else None,
            raised=_most(model, changed, 1.0),
            lowered=_most(model, changed, -1.0),
            rows=by_weights.get(label, ()),
        )
        for (label, one), changed in zip(found, direct, strict=True)
    ]


def _logits(model: Model, written: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """What vectors of the stream add to each logit, less what they add to all alike."""
    written = written.to(model.device)
    vocab = model.anatomy.vocab
    parts = [
        (written @ unembedding(model, slice(start, min(start + TOKENS_AT_ONCE, vocab))).float()).cpu()
        for start in range(0, vocab, TOKENS_AT_ONCE)
    ]
    return torch.cat(parts, dim=1) - (written @ mean_unembedding(model)).cpu()[:, None]


def _most(model: Model, logits: Tensor | None, sign: float) -> tuple[tuple[str, float], ...]:
    if logits is None:
        return ()
    tokens = (sign * logits).topk(min(WRITTEN, len(logits))).indices.tolist()
    return tuple((_word(model, token), round(float(logits[token]), 4)) for token in tokens)


def _row(model: Model, read: int, logits: Tensor, sign: float) -> tuple[str, str, float]:
    token = int((sign * logits).argmax())
    return _word(model, read), _word(model, token), round(float(logits[token]), 4)


def _word(model: Model, token: int) -> str:
    return str(model.tokenizer.decode([token]))
