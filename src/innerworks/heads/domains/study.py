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
from innerworks.heads.domains.screen import estimates, promising
from innerworks.heads.labels import suspects_of
from innerworks.heads.means import HeadMeans, HeadReference, reference
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units, units_of
from innerworks.stats import CONSTANTS, Half
from innerworks.text import TextBatch
from innerworks.text.openings import LEAST_DOCUMENTS, LEAST_TOKENS, comparable, documents


@dataclass(frozen=True, kw_only=True)
class Effort:
    """pairs: of head and domain that are ablated. tokens: read of each document."""

    pairs: int
    tokens: int


HALVES: tuple[Half, Half] = ("discovery", "confirmation")
EFFORTS = {"standard": Effort(pairs=8, tokens=48), "full": Effort(pairs=60, tokens=256)}


class Domains:
    """Which heads serve one domain?"""

    name = "domains"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """The means that ablations put in a head's place."""
        return [HeadMeans()]

    def measure(self, given: Given) -> Kept:
        """Screen, ablate, and ablate controls for what is labelled; goes on from `given.saved`."""
        effort, kept = EFFORTS.get(given.depth), given.saved
        if effort is None:
            return Kept(about={"not measured": f"{given.depth} has no time for ablations by domain"})
        discovery, confirmation = (documents(given.reading, half, tokens=effort.tokens) for half in HALVES)
        domains = comparable(discovery, confirmation)
        if len(domains) < 2:
            return Kept(about={"not measured": _too_few(domains)})
        of = reference(given.model, given.states[HeadMeans.name], "text")
        if kept is None:
            kept = _screen(given, effort, discovery, domains, of)
            given.save(kept)
        if "agreement" not in kept.about:
            kept = _ablate(given, confirmation, kept, of)
        return _with_controls(given, confirmation, kept, of)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Contrasts of harm, with their rungs."""
        return [*before, *decide.findings(kept, units)]


def _too_few(domains: Sequence[str]) -> str:
    found = f" (only {domains[0]})" if domains else ""
    enough = f"{LEAST_DOCUMENTS} documents of {LEAST_TOKENS} tokens or more in each half"
    return f"fewer than two domains have {enough}{found}: there is nothing to contrast"


def _screen(given: Given, effort: Effort, batches: Sequence[TextBatch], domains: Sequence[str], of: HeadReference) -> Kept:
    count = given.tally(sum(len(batch.tokens) for batch in batches), "documents screened")
    found = estimates(given.model, batches, of.mean, seed=given.seed, step=count)
    units = _units(batches)
    pairs = promising(found, [given.reading.units[unit].stratum for unit in units], domains, most=effort.pairs)
    arrays = {
        "screen": found.astype(np.float32),
        "discovery": units,
        "pairs": np.array([(domains.index(domain), layer, head) for domain, layer, head in pairs], dtype=np.int64).reshape(-1, 3),
        "removed": of.removed.numpy(force=True),
    }
    return Kept(arrays=arrays, about={"domains": list(domains), "tokens": effort.tokens, "seed": given.seed, "controls": {}})


def _ablate(given: Given, batches: Sequence[TextBatch], kept: Kept, of: HeadReference) -> Kept:
    """Ablate every head of the pairs, batch by batch; `confirmation` says which documents have been reached."""
    heads: list[Control] = sorted({(layer, head) for _, layer, head in kept.arrays["pairs"].tolist()})
    known = {"harm": np.zeros((len(heads), 0), np.float32), "confirmation": np.zeros(0, np.int64)}
    arrays = {**known, "heads": np.array(heads, dtype=np.int64).reshape(-1, 2), **kept.arrays}
    left = [batch for batch in batches if not np.isin(batch.units.numpy(), arrays["confirmation"]).any()]
    count = given.tally(len(heads) * len(batches), "ablations", done=len(heads) * (len(batches) - len(left)))
    for batch in left:
        harm = harms(given.model, [batch], of.mean, heads, step=count).astype(np.float32)
        arrays["harm"] = np.concatenate([arrays["harm"], harm], axis=1)
        arrays["confirmation"] = np.concatenate([arrays["confirmation"], batch.units.numpy()])
        given.save(replace(kept, arrays=dict(arrays)))
    whole = replace(kept, arrays=arrays)
    return replace(whole, about={**kept.about, "agreement": agreement(whole, units_of(given.reading))})


def _with_controls(given: Given, batches: Sequence[TextBatch], kept: Kept, of: HeadReference) -> Kept:
    """Ablate matched heads on the documents of a domain, for each label that has enough of them to be decided."""
    found = decide.Harms.of(kept, units_of(given.reading))
    labels = [one for one in found.tested() if one.labelled and found.inside(one.domain).sum() >= CONSTANTS.least_units]
    suspects = suspects_of(given.before) | {(layer, head) for layer, head in kept.arrays["heads"].tolist()}
    removed = kept.arrays["removed"].astype(np.float64)
    for one in labels:
        name, own = decide.control_name(one), (one.layer, one.head)
        if name in kept.arrays:
            continue
        controls = matched([own], suspects, removed)
        inside = [batch for batch in batches if batch.stratum == one.domain]
        count = given.tally(len(controls) * len(inside), f"ablations of controls of {one.domain}")
        harm = harms(given.model, inside, of.mean, controls, step=count)
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
        for domain in harms.domains
    ]
    estimated, exact = np.array(both, dtype=np.float64).reshape(-1, 2).T
    if len(estimated) < 3 or min(estimated.std(), exact.std()) == 0:
        return {"pairs": len(estimated)}
    return {"pairs": len(estimated), "correlation": float(np.corrcoef(estimated, exact)[0, 1])}


def _units(batches: Sequence[TextBatch]) -> np.ndarray:
    return np.concatenate([batch.units.numpy(force=True) for batch in batches])
