"""Copy suppression as a study of a scan: does a head lower what is in the text and about to be predicted?

1. Of the heads that anti-copy by their weights, at most twelve in at most eight layers, those labelled for it first, then the
   strongest: where they look, and what they do to it (`look.py`, `attention.py`), on documents of both halves.
2. Of those that earn the label, at most four: ablations beside 20 controls (`ablations.py`), and the share of their effect that
   is copy suppression (`cspa.py`).
3. Everything is decided from the arrays (`decide.py`).

At `quick` nothing is measured: every prediction costs a whole vocabulary.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from innerworks.errors import UsageError
from innerworks.findings import Finding
from innerworks.heads.circuits.copying import spaced
from innerworks.heads.circuits.embedding import refusal
from innerworks.heads.controls import how_matched, matched
from innerworks.heads.harms import Head
from innerworks.heads.labels import suspects_of
from innerworks.heads.means import HeadMeans, HeadReference, reference
from innerworks.heads.suppression import ablations, attention, cspa, decide
from innerworks.heads.suppression.documents import documents
from innerworks.heads.suppression.look import Look, look
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units, units_of
from innerworks.sites import head_site

HALVES = ("discovery", "confirmation")
BINS = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.01)  # of the lens probability of a key's token
POINTS = 400  # pairs of row and key kept for a figure, per head
EXAMPLES = 12
MOST_HEADS, MOST_LAYERS, MOST_LABELS, MOST_COPIERS = 12, 8, 4, 3


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is looked at: documents per half and tokens of each, and documents behind each ablation."""

    documents: int
    tokens: int
    ablated: int


EFFORTS = {"standard": Effort(documents=30, tokens=80, ablated=16), "full": Effort(documents=80, tokens=192, ablated=80)}


class Suppression:
    """Which heads suppress copies?"""

    name = "suppression"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """The means that ablations put in a head's place."""
        return [HeadMeans()]

    def measure(self, given: Given) -> Kept:
        """Look, label, ablate; goes on from `given.saved`."""
        reason = refusal(given.model)
        if given.depth not in EFFORTS:
            reason = "each prediction costs a whole vocabulary: measured from depth 'standard' on"
        anti = list(decide.anti_copiers(given.before))
        if reason is None and not anti:
            reason = "no head anti-copies by its weights"
        if reason is not None:
            return Kept(about={"not measured": reason})
        kept, heads, looks = given.saved, _strongest(anti), list[Look]()
        if kept is None:
            looks = _look(given, heads)
            kept = _seen(given, looks, anti_copying=len(anti))
            given.save(kept)
        labelled = decide.labelled(decide.labels(kept.arrays, units_of(given.reading), given.before))[:MOST_LABELS]
        return _intervene(given, kept, looks or _look(given, heads), labelled) if labelled else kept

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """See `decide.findings`."""
        return [*before, *decide.findings(kept.arrays, kept.about, units, before)]


def _strongest(heads: Sequence[Head]) -> list[Head]:
    """As many as we look at; a new layer costs as much as all heads of a known one."""
    out: list[Head] = []
    for head in heads:
        layers = {layer for layer, _ in out}
        if len(out) < MOST_HEADS and (head[0] in layers or len(layers) < MOST_LAYERS):
            out.append(head)
    return out


# --- looking -----------------------------------------------------------------------------------------------------


def _look(given: Given, heads: list[Head]) -> list[Look]:
    """Both halves."""
    effort, looks = EFFORTS[given.depth], []
    for number, half in enumerate(HALVES):
        some = documents(given.reading, half, most=effort.documents, length=effort.tokens)
        total = 2 * len(some.units)
        looks.append(
            look(
                given.model, some, heads, step=lambda done, n=number, t=total: given.step(done + n * t // 2, t, "documents read")
            )
        )
    return looks


def _seen(given: Given, looks: Sequence[Look], *, anti_copying: int) -> Kept:
    """What looking says, of the documents of both halves."""
    parts, seen = [seen_arrays(one) for one in looks], looks[-1]
    arrays = {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
    arrays |= {"heads": np.array(seen.heads, dtype=np.int64).reshape(-1, 2), "points": points(seen)}
    examples, suppressed = told(given.model, given.reading.units, seen)
    about = {"bins": list(BINS), "examples": examples, "suppressed": suppressed}
    return Kept(arrays=arrays, about={**about, "anti_copying": anti_copying, "depth": given.depth, "seed": given.seed})


def seen_arrays(seen: Look) -> dict[str, np.ndarray]:
    """Everything about attention and its effect, one row per document; see `decide.PAIRS`."""
    columns: dict[str, list[torch.Tensor]] = {name: [] for own, null, _ in decide.PAIRS.values() for name in (own, null)}
    binned: list[torch.Tensor] = []
    for number, head in enumerate(seen.heads):
        wanted = attention.targets(seen.documents, seen.lens[head[0]], seen.tenth[head[0]])
        swapped = attention.swap(seen.pattern[number : number + 1], wanted, seen.documents)
        looked, effect = attention.near(seen.pattern[number], wanted, seen.documents), seen.direct(head)
        lowered = attention.near(effect, wanted, seen.documents)
        found = {
            "own": swapped.own[0],
            "swapped": swapped.swapped[0],
            "paired": attention.per_row(seen.pattern[number], looked.paired),
            "elsewhere": attention.per_row(looked.elsewhere, looked.paired),
            "effect_predicted": attention.per_pair(effect, lowered.paired),
            "effect_elsewhere": attention.per_pair(lowered.elsewhere, lowered.paired),
        }
        for name, column in found.items():
            columns[name].append(column)
        binned.append(_by_probability(seen, number, effect))
    out = {name: torch.stack(each, dim=1).float().numpy() for name, each in columns.items()}
    out["by_probability"] = torch.stack(binned, dim=1).float().numpy()  # doc head bin (pairs, attention, effect)
    return {**out, "units": np.array(seen.documents.units, dtype=np.int64)}


def _by_probability(seen: Look, number: int, effect: torch.Tensor) -> torch.Tensor:
    """Per document and bin of the lens probability of a key's token: pairs, summed attention, summed effect."""
    layer = seen.heads[number][0]
    which = torch.bucketize(seen.lens[layer].exp(), torch.tensor(BINS[1:-1]), right=True)
    counts = attention.countable(seen.documents)
    out = []
    for one in range(len(BINS) - 1):
        here = counts & (which == one)
        sums = [quantity.sum(dim=(1, 2)) for quantity in (here.float(), seen.pattern[number] * here, effect * here)]
        out.append(torch.stack(sums, dim=1))
    return torch.stack(out, dim=1)


def points(seen: Look) -> np.ndarray:
    """For a figure, `[head, point, 4]`: attention, direct effect, lens probability, and whether among the first ten.

    Half of the points are predicted tokens, half others, evenly spaced in the order of attention.
    """
    out = np.full((len(seen.heads), POINTS, 4), np.nan, dtype=np.float32)
    for number, head in enumerate(seen.heads):
        wanted = attention.targets(seen.documents, seen.lens[head[0]], seen.tenth[head[0]])
        columns = [seen.pattern[number], seen.direct(head), seen.lens[head[0]].exp(), wanted.float()]
        place = 0
        for group in (wanted, attention.countable(seen.documents) & ~wanted):
            values = torch.stack([column[group] for column in columns], dim=1)
            values = values[values[:, 0].argsort(descending=True)].numpy()
            ranks = (
                np.unique((np.linspace(0, 1, POINTS // 2) ** 3 * (len(values) - 1)).round().astype(int)) if len(values) else []
            )
            out[number, place : place + len(ranks)] = values[ranks]
            place += len(ranks)
    return out


def told(model: Model, units: Sequence[Any], seen: Look) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """In tokens: the strongest single pairs of every head, and the tokens that it lowers most where they were predicted."""
    examples, most = {}, {}
    for head in seen.heads:
        wanted = attention.targets(seen.documents, seen.lens[head[0]], seen.tenth[head[0]])
        effect = seen.direct(head) * wanted
        order = effect.flatten().argsort()[:EXAMPLES]
        places = [tuple(int(x) for x in np.unravel_index(int(one), effect.shape)) for one in order]
        site = head_site(*head)
        examples[site] = [_example(model, units, seen, head, effect, place) for place in places if effect[place] < 0]
        sums: Counter[int] = Counter()
        for doc, row, key in wanted.nonzero().tolist():
            sums[int(seen.documents.tokens[doc, key])] += float(-effect[doc, row, key])  # pyright: ignore[reportArgumentType]
        most[site] = [[_spelled(model, token), round(float(total), 3)] for token, total in sums.most_common(10) if total > 0]
    return examples, most


def _example(
    model: Model, units: Sequence[Any], seen: Look, head: Head, effect: torch.Tensor, place: tuple[int, ...]
) -> dict[str, Any]:
    doc, row, key = place
    tokens = seen.documents.tokens[doc]
    return {
        "unit": units[seen.documents.units[doc]].id,
        "row": row,
        "key": key,
        "before": "".join(_spelled(model, int(token)) for token in tokens[max(0, row - 7) : row + 1]),
        "lowered": _spelled(model, int(tokens[key])),
        "attention": round(float(seen.pattern[seen.heads.index(head)][doc, row, key]), 4),
        "effect": round(float(effect[place]), 4),
        "probability": round(float(seen.lens[head[0]][doc, row, key].exp()), 4),
    }


def _spelled(model: Model, token: int) -> str:
    try:
        return str(model.tokenizer.decode([token]))
    except UsageError:
        return f"<{token}>"


# --- intervening -------------------------------------------------------------------------------------------------


def _intervene(given: Given, kept: Kept, looks: Sequence[Look], labelled: list[Head]) -> Kept:
    """Ablate labelled heads, controls, and earlier copying heads; and keep only copy suppression of what heads write."""
    discovery, confirmation = looks
    seen = confirmation.only(spaced(len(confirmation.documents.units), EFFORTS[given.depth].ablated))
    if "bins" not in kept.arrays:
        kept = _ablate(given, kept, seen, labelled)
        given.save(kept)
    lost = cspa.lost(given.model, seen, labelled, cspa.average(discovery), seed=given.seed)
    return replace(kept, arrays={**kept.arrays, "cspa": lost})


def _ablate(given: Given, kept: Kept, seen: Look, labelled: list[Head]) -> Kept:
    means: HeadReference = reference(given.model, given.states[HeadMeans.name], "text")
    removed = means.removed.numpy(force=True)
    copiers = _copiers(given.before, labelled)
    controls = matched(labelled, suspects_of(given.before) | set(seen.heads), removed)
    families = {"suppression heads": labelled, "copying heads": copiers, "copying and suppression heads": [*copiers, *labelled]}
    families = {name: one for name, one in families.items() if len(one) >= 2}
    if not (copiers and labelled):
        families.pop("copying and suppression heads", None)
    groups: dict[ablations.Group, None] = {(head,): None for head in (*labelled, *controls, *copiers)}
    groups |= {tuple(sorted(one)): None for one in families.values()}
    groups |= {tuple(sorted(c for c in copiers if c[0] < layer)): None for layer, _ in labelled}
    groups.pop((), None)
    found = ablations.without(
        given.model, seen, list(groups), labelled, means.mean,
        step=lambda done: given.step(done, len(seen.documents.units), "documents ablated"),
    )  # fmt: skip
    arrays = {
        "bins": found.bins.astype(np.float32), "loss": found.loss, "divergence": found.divergence, "toward": found.toward,
        "copied": ablations.copied(given.model, seen, labelled, copiers, means.mean),
        "ablated_units": np.array(seen.documents.units, dtype=np.int64),
    }  # fmt: skip
    about = {
        "labelled": [list(head) for head in labelled],
        "watched": [list(head) for head in labelled],
        "copiers": [list(head) for head in copiers],
        "controls": [ablations.name_of((head,)) for head in controls],
        "families": {name: [list(head) for head in one] for name, one in families.items()},
        "runs": list(found.names),
        "matched": {head_site(*head): how_matched(head, controls, removed) for head in labelled},
    }
    return Kept(arrays={**kept.arrays, **arrays}, about={**kept.about, **about})


def _copiers(before: Sequence[Finding], labelled: Sequence[Head]) -> list[Head]:
    """The heads that copy most in context, of those before the last labelled head."""
    last = max(layer for layer, _ in labelled)
    rows = [one for one in before if (one.behaviour, one.measure, one.material) == ("copying", "direct_effect", "text")]
    rows = sorted((one for one in rows if one.rung >= 1 and (one.layer or 0) < last), key=lambda one: -one.effect)
    return [(int(one.layer or 0), int(one.index or 0)) for one in rows[:MOST_COPIERS]]
