"""A claim of the literature, and its verdict in one model.

A claim is a list of clauses, the first of which is its core. Findings answer each clause *yes*, *no* or *open*. All yes: the
claim *holds*. Core yes, another no or open: it *holds in part*. Core no: it *does not hold*. Core open: *not measured*, with the
effects that are not excluded. A p above .05 alone never makes a "no".
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import polars

Answer = Literal["yes", "no", "open"]
VERDICTS = ("holds", "holds in part", "does not hold", "not applicable", "not measured")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """How findings answered one clause, with the numbers behind it.

    number, low, high: an effect with its interval, in `unit`; floor: what it had to exceed; mde: the smallest effect that would
    have been found; n: units; sites: the parts that answer for a yes.
    """

    clause: str
    answer: Answer
    says: str
    number: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    floor: float | None = None
    mde: float | None = None
    n: int | None = None
    sites: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One part of a claim, and the rule that answers it from findings."""

    says: str
    ask: Callable[["polars.DataFrame"], Evidence]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the literature."""

    id: str
    title: str
    statement: str
    citation: str
    clauses: tuple[Clause, ...]  # the first is the core
    applies: Callable[["polars.DataFrame"], str | None] = lambda findings: None  # why it is not applicable, or None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a claim comes to in one model."""

    claim: Claim
    verdict: str
    summary: str
    evidence: tuple[Evidence, ...]


def judge(claim: Claim, findings: "polars.DataFrame") -> Verdict:
    """Does a claim hold, by what was found?"""
    reason = claim.applies(findings)
    if reason is not None:
        return Verdict(claim=claim, verdict="not applicable", summary=reason, evidence=())
    evidence = tuple(clause.ask(findings) for clause in claim.clauses)
    core, others = evidence[0], evidence[1:]
    if core.answer == "open":
        return Verdict(claim=claim, verdict="not measured", summary=core.says, evidence=evidence)
    if core.answer == "no":
        return Verdict(claim=claim, verdict="does not hold", summary=core.says, evidence=evidence)
    missing = [one for one in others if one.answer != "yes"]
    summary = "; ".join([core.says, *(f"{'not' if one.answer == 'no' else 'open'}: {one.clause}" for one in missing)])
    return Verdict(claim=claim, verdict="holds in part" if missing else "holds", summary=summary, evidence=evidence)
