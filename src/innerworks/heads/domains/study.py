"""Domain heads as a study of a scan: which heads does one domain (a language, code, ...) lose most by?

Ablating every head on enough text of every domain is dear, so all heads are screened on discovery documents by gradients, and
the most promising pairs of head and domain are ablated on confirmation documents. Ferrando and Voita 2024, arXiv:2403.00824,
find heads that matter in one domain only, by the share they have in the information flow; here they must matter to the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from innerworks.findings import Finding
from innerworks.heads.controls import Control, how_matched, matched
from innerworks.heads.domains import decide
from innerworks.heads.domains.harm import harms
from innerworks.heads.domains.screen import documents, estimates, promising
from innerworks.heads.means import HeadMeans, HeadReference, reference
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units, units_of
from innerworks.stats import CONSTANTS
from innerworks.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Effort:
    """pairs: of head and domain that are ablated. tokens: read of each document."""

    pairs: int
    tokens: int


EFFORTS = {"standard": Effort(pairs=12, tokens=64), "full": Effort(pairs=60, tokens=256)}


class Domains:
    """Which heads serve one domain?"""

    name = "domains"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """The means that ablations put in a head's place."""
        return [HeadMeans()]

    def measure(self, given: Given) -> Kept:
        """Screen, ablate, and ablate controls for what is labelled."""
        effort, before = EFFORTS.get(given.depth), given.saved
        domains = sorted({unit.stratum for unit in given.reading.units if unit.material == "text"})
        if effort is None:
            return Kept(about={"not measured": f"{given.depth} has no time for ablations by domain"})
        if len(domains) < 2:
            return Kept(about={"not measured": f"the corpus has one domain, {domains[0]}: there is nothing to contrast it with"})
        of = reference(given.model, given.states[HeadMeans.name], "text")
        kept = _screen(given, effort, domains, of) if before is None or "screen" not in before.arrays else before
        given.save(kept)
        kept = _ablate(given, effort, kept, of) if "harm" not in kept.arrays else kept
        given.save(kept)
        return _with_controls(given, effort, kept, of)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Contrasts of harm, with their rungs."""
        return [*before, *decide.findings(kept, units)]


def _screen(given: Given, effort: Effort, domains: Sequence[str], of: HeadReference) -> Kept:
    batches = documents(given.reading, "discovery", tokens=effort.tokens)
    total, done = sum(len(batch.tokens) for batch in batches), 0

    def step(some: int) -> None:
        nonlocal done
        done += some
        given.step(done, total, "documents screened")

    found = estimates(given.model, batches, of.mean, step=step)
    units = _units(batches)
    pairs = promising(found, [given.reading.units[unit].stratum for unit in units], most=effort.pairs)
    arrays = {
        "screen": found.astype(np.float32),
        "discovery": units,
        "pairs": np.array([(domains.index(domain), layer, head) for domain, layer, head in pairs], dtype=np.int64).reshape(-1, 3),
        "removed": of.removed.numpy(force=True),
    }
    return Kept(arrays=arrays, about={"domains": list(domains), "tokens": effort.tokens, "seed": given.seed, "controls": {}})


def _ablate(given: Given, effort: Effort, kept: Kept, of: HeadReference) -> Kept:
    batches = documents(given.reading, "confirmation", tokens=effort.tokens)
    heads: list[Control] = sorted({(layer, head) for _, layer, head in kept.arrays["pairs"].tolist()})
    harm = harms(given.model, batches, of.mean, heads, step=_counter(given, len(heads) * len(batches), "ablations"))
    arrays = {
        **kept.arrays,
        "harm": harm.astype(np.float32),
        "heads": np.array(heads, dtype=np.int64).reshape(-1, 2),
        "confirmation": _units(batches),
    }
    whole = replace(kept, arrays=arrays)
    return replace(whole, about={**kept.about, "agreement": agreement(whole, units_of(given.reading))})


def _with_controls(given: Given, effort: Effort, kept: Kept, of: HeadReference) -> Kept:
    """Ablate matched heads on the documents of a domain, for each label that has enough of them to be decided."""
    found = decide.Harms.of(kept, units_of(given.reading))
    labels = [one for one in found.tested() if one.labelled and found.inside(one.domain).sum() >= CONSTANTS.least_units]
    suspects = {(layer, head) for layer, head in kept.arrays["heads"].tolist()}
    removed = kept.arrays["removed"].astype(np.float64)
    for one in labels:
        name, own = decide.control_name(one), (one.layer, one.head)
        if name in kept.arrays:
            continue
        controls = matched([own], suspects, removed)
        batches = [b for b in documents(given.reading, "confirmation", tokens=effort.tokens) if b.stratum == one.domain]
        count = _counter(given, len(controls) * len(batches), f"ablations of controls of {one.domain}")
        harm = harms(given.model, batches, of.mean, controls, step=count)
        about = {**kept.about, "controls": {**kept.about["controls"], name: how_matched(own, controls, removed)}}
        kept = Kept(arrays={**kept.arrays, name: harm.astype(np.float32)}, about=about)
        given.save(kept)
    return kept


def agreement(kept: Kept, units: Units) -> dict[str, float | int]:
    """Do the estimates of the screen agree with real ablations? Over tested heads and domains, on documents of either half."""
    harms = decide.Harms.of(kept, units)
    strata = np.array([units[number][1] for number in kept.arrays["discovery"].tolist()])
    both = [
        (kept.arrays["screen"][strata == domain, layer, head].mean(), harm[harms.inside(domain)].mean())
        for (layer, head), harm in harms.by_head.items()
        for domain in sorted(set(strata))
        if harms.inside(domain).any()
    ]
    estimated, exact = np.array(both, dtype=np.float64).reshape(-1, 2).T
    if len(estimated) < 3 or min(estimated.std(), exact.std()) == 0:
        return {"pairs": len(estimated)}
    return {"pairs": len(estimated), "correlation": float(np.corrcoef(estimated, exact)[0, 1])}


def _units(batches: Sequence[TextBatch]) -> np.ndarray:
    return np.concatenate([batch.units.numpy(force=True) for batch in batches])


def _counter(given: Given, total: int, unit: str):  # noqa: ANN202
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        given.step(done, total, unit)

    return step
