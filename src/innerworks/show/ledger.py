"""The ledger for a reader: each claim of the literature, its verdict in this model, and what the verdict rests on."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from innerworks.atlas import Atlas
from innerworks.claims import LEDGER
from innerworks.claims.claim import VERDICTS
from innerworks.errors import UsageError, near_misses

STYLES = {
    "holds": "bold green",
    "holds in part": "green",
    "does not hold": "bold red",
    "not applicable": "dim",
    "not measured": "dim",
}
MARKS = {"yes": "✓", "no": "✗", "open": "?"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the ledger."""

    id: str
    title: str
    statement: str
    citation: str
    verdict: str
    summary: str
    evidence: list[dict[str, Any]]


def entries(atlas: Atlas) -> Iterator[Entry]:
    """The rows of the ledger, in its order."""
    for row in atlas.claims.iter_rows(named=True):
        yield Entry(**{**row, "evidence": json.loads(row["evidence"])})


def headline(atlas: Atlas) -> str:
    """How many claims came to which verdict."""
    counts = Counter(entry.verdict for entry in entries(atlas))
    told = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    return f"Of {counts.total()} claims of the literature: {', '.join(told)}."


def ledger(atlas: Atlas) -> RenderableType:
    """All claims, for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "claim", "verdict", "because"):
        table.add_column(name, overflow="fold")
    for entry in entries(atlas):
        verdict = Text(entry.verdict, style=STYLES[entry.verdict])
        table.add_row(entry.id, entry.title, verdict, Text(entry.summary, style="" if entry.evidence else "dim"))
    return Group(Text(headline(atlas), style="bold"), table)


def claim_page(atlas: Atlas, claim: str) -> RenderableType:
    """One claim: what it says, the verdict, and each clause with its numbers."""
    known = {entry.id: entry for entry in entries(atlas)}
    if claim.upper() in LEDGER and claim.upper() not in known:
        raise UsageError(f"This atlas was written before claim {claim.upper()} was known. Scan the model again.")
    if claim.upper() not in known:
        raise UsageError(f"The ledger holds no claim {claim!r}.{near_misses(claim.upper(), known)} It holds {', '.join(known)}.")
    entry = known[claim.upper()]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "clause", "found"):
        table.add_column(name, overflow="fold")
    for one in entry.evidence:
        table.add_row(MARKS[one["answer"]], Text(one["clause"]), Text(one["says"]))
    return Group(
        Text(f"{entry.id} {entry.title}: {entry.verdict}", style=STYLES[entry.verdict]),
        Text(entry.statement),
        Text(entry.citation, style="dim"),
        table,
    )
