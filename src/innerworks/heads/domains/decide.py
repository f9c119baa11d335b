"""Which heads serve a domain? From harms by document to findings, as pure arithmetic.

1. Rung 1: on confirmation documents, every pair that was ablated is held against the floor and the ratio (`contrast.py`).
   False discoveries are controlled over domains and pairs (`stats.family_q`; a domain of which no pair was tried counts).
   The score is an ablation already, so this rung says more than *seen*: losing the head costs this domain, and little else.
2. Rung 2: the harm to the domain's documents is beyond that of 20 matched heads of neighbouring layers (`stats.necessity`).
3. Rung 3: harm elsewhere is little by `stats.selectivity`, whose limit is stricter than the ratio: at most .01 nats.

Rungs 2 and 3 are about the domain's own documents, of which there must be 12: the built-in corpus has 8 to confirm on, so
there they are not tried, and the note says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerworks.findings import Finding, against_controls, collateral, joined
from innerworks.heads.domains.contrast import FLOOR, Contrast, contrast, ratio_interval
from innerworks.model.study import Kept, Units
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Estimate, Necessity, adjust, estimate, family_q, necessity, selectivity


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A head that was ablated for a domain, and what that came to."""

    domain: str
    layer: int
    head: int
    found: Contrast
    q: float

    @property
    def labelled(self) -> bool:
        """Does it serve the domain?"""
        return self.q <= CONSTANTS.level


@dataclass(frozen=True, kw_only=True)
class Harms:
    """What each tested head's loss cost each confirmation document."""

    strata: tuple[str, ...]
    domains: tuple[str, ...]  # that are asked about
    by_head: Mapping[tuple[int, int], Array]
    pairs: tuple[tuple[str, int, int], ...]  # (domain, layer, head)

    @classmethod
    def of(cls, kept: Kept, units: Units) -> "Harms":
        """As an atlas keeps them."""
        strata = tuple(str(units[number][1]) for number in kept.arrays["confirmation"].tolist())
        heads = [(layer, head) for layer, head in kept.arrays["heads"].tolist()]
        domains = kept.about["domains"]
        pairs = tuple((domains[domain], layer, head) for domain, layer, head in kept.arrays["pairs"].tolist())
        harm = kept.arrays["harm"].astype(np.float64)
        return cls(strata=strata, domains=tuple(domains), by_head=dict(zip(heads, harm, strict=True)), pairs=pairs)

    def inside(self, domain: str) -> np.ndarray:
        """Which documents are of a domain."""
        return np.array(self.strata) == domain

    def tested(self) -> list[Tested]:
        """Every pair, with its q."""
        found = {pair: contrast(self.by_head[pair[1:]], self.inside(pair[0])) for pair in self.pairs}
        q: dict[tuple[str, int, int], float] = {}
        families = {domain: [pair for pair in self.pairs if pair[0] == domain] for domain in self.domains}
        p_of = {domain: np.array([found[pair].p for pair in pairs]) for domain, pairs in families.items()}
        by_family = family_q(p_of)
        for domain, pairs in families.items():
            q |= dict(zip(pairs, by_family[domain].tolist(), strict=True))
        return [Tested(domain=pair[0], layer=pair[1], head=pair[2], found=found[pair], q=q[pair]) for pair in self.pairs]


def control_name(one: Tested) -> str:
    """The name under which the harm of its controls is kept."""
    return f"controls/{one.domain}/{head_site(one.layer, one.head)}"


def findings(kept: Kept, units: Units) -> list[Finding]:
    """All rows about domains: contrasts, harm by domain, and rungs 2 and 3 where they could be tried."""
    if "harm" not in kept.arrays:
        return []
    harms = Harms.of(kept, units)
    tested = harms.tested()
    raised, rows = _climb(harms, tested, kept)
    return [*(_contrast_row(harms, one, *raised[i], kept) for i, one in enumerate(tested)), *_by_domain(harms), *rows]


def _climb(harms: Harms, tested: Sequence[Tested], kept: Kept) -> tuple[list[tuple[int, str]], list[Finding]]:
    """The rung of each pair with a note, and the rows of rungs 2 and 3."""
    controls = {
        i: kept.arrays[control_name(one)].astype(np.float64) for i, one in enumerate(tested) if control_name(one) in kept.arrays
    }
    found = {i: _necessity(harms, tested[i], controls[i]) for i in controls}
    q = dict(zip(found, adjust(np.array([one.p for one in found.values()])).tolist(), strict=True))
    raised, rows = [], []
    for i, one in enumerate(tested):
        if not one.labelled or i not in found:
            count = int(harms.inside(one.domain).sum())
            why = f"rung 2 not tried: {count} confirmation documents of this domain, {CONSTANTS.least_units} are the least"
            raised.append((int(one.labelled), why if one.labelled else ""))
            continue
        rows.append(_necessity_row(one, found[i], q[i], kept))
        if q[i] > CONSTANTS.level:
            raised.append((1, "rung 2 tried, not shown"))
            continue
        row, passed = _selectivity(harms, one, kept)
        rows.append(row)
        raised.append((3, "alone") if passed else (2, "alone; rung 3 " + row.note.partition(":")[0]))
    return raised, rows


def _necessity(harms: Harms, one: Tested, controls: Array) -> Necessity:
    inside = harms.inside(one.domain)
    return necessity(harms.by_head[one.layer, one.head][inside], controls, [one.domain] * int(inside.sum()))


def _place(domain: str, layer: int, head: int) -> dict[str, Any]:
    where = {"chapter": "heads", "behaviour": f"domain:{domain}", "site": head_site(layer, head), "layer": layer, "index": head}
    return {**where, "material": "text", "ablation": "mean", "unit": "nats"}


def _interval(found: Estimate) -> dict[str, Any]:
    numbers = {"effect": float(found.mean), "effect_low": float(found.low), "effect_high": float(found.high)}
    return {**numbers, "n": found.n, "df": found.df}


def _contrast_row(harms: Harms, one: Tested, rung: int, note: str, kept: Kept) -> Finding:
    found, inside = one.found, harms.inside(one.domain)
    low, high = ratio_interval(harms.by_head[one.layer, one.head], inside, seed=kept.about["seed"])
    said = f"{found.ratio:.1f} [{low:.1f}, {high:.1f}] times the harm elsewhere; {found.inside.n} documents of the domain"
    return Finding(
        **_place(one.domain, one.layer, one.head),
        **_interval(found.difference),
        measure="harm_contrast",
        value=float(found.inside.mean),
        null=float(found.elsewhere.mean),
        null_kind="other domains",
        floor=FLOOR,
        p=found.p,
        mde=float(found.difference.mde(FLOOR)),
        q=one.q,
        rung=rung,
        note=joined(said, note),
    )


def _by_domain(harms: Harms) -> list[Finding]:
    """What losing each tested head costs each domain: for the eye, not tested."""
    rows = []
    for layer, head in harms.by_head:
        for domain in harms.domains:
            inside = harms.inside(domain)
            found = estimate(harms.by_head[layer, head][inside], [domain] * int(inside.sum()))
            row = {**_place(domain, layer, head), **_interval(found), "measure": "harm_in_domain", "value": float(found.mean)}
            rows.append(Finding(**row, null=0.0, null_kind="none", floor=0.0, p=None, mde=None))
    return rows


def _necessity_row(one: Tested, found: Necessity, q: float, kept: Kept) -> Finding:
    note = kept.about["controls"][control_name(one)]
    return Finding(
        **_place(one.domain, one.layer, one.head),
        **against_controls(found),
        measure="harm",
        null_kind="control heads",
        floor=CONSTANTS.harm_floor,
        q=q,
        note=joined("metric: loss of the domain", note, "" if found.above_all else "a control harms as much"),
    )


def _selectivity(harms: Harms, one: Tested, kept: Kept) -> tuple[Finding, bool]:
    inside, harm = harms.inside(one.domain), harms.by_head[one.layer, one.head]
    strata = np.array(harms.strata)
    found = selectivity(
        harm[inside], strata[inside].tolist(), harm[~inside], strata[~inside].tolist(), np.zeros(1), kept.about["seed"]
    )
    row = collateral(found, elsewhere="loss of other domains", **_place(one.domain, one.layer, one.head))
    return row, found.verdict == "pass"
