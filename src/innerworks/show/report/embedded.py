"""What the page knows of every head, as one compact JSON for its script: head pages and the table of all heads come from it.

1. What many rows share is written once: a *series* is a behaviour, measure and material with its unit, null, floor and n.
2. A row is `[head, series, score, null, effect, as text, q, stands out, rung, note, others]`, numbers as they are printed; what
   is nothing at its end is left out.
3. At most `ROWS` rows are embedded: all of labels and everything about partners and layers first, then those that come nearest
   to their floors. What is left out is counted; `findings.parquet` has it all.
4. Examples: tokens, and the pattern as bytes (0 to 255), row by row up to the diagonal, in base64.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from innerworks.atlas import Atlas, Example
from innerworks.show import numbers
from innerworks.show.behaviours import BEHAVIOURS, RUNGS, behaviour_of, in_order
from innerworks.show.facts import Facts, facts
from innerworks.show.head import heads_in, subject
from innerworks.show.measures import QUESTIONS, word
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Head, Score, Verdict
from innerworks.sites import Site

ROWS = 8_000


class Numbered:
    """Things, each once, by number."""

    def __init__(self) -> None:
        self.of: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        """Its number, a new one for what is new."""
        return self.of.setdefault(thing, len(self.of))


def embedded(atlas: Atlas, found: Sequence[Verdict], examples: Sequence[Example]) -> dict[str, Any]:
    """Gather everything that the script needs; see the top of this file."""
    sites = list(dict.fromkeys(head.site for verdict in found for head in verdict.heads))
    sites.sort(key=lambda site: (Site.parse(site).layer or 0, Site.parse(site).head or 0))
    heads, series, texts = {site: i for i, site in enumerate(sites)}, Numbered(), Numbered()
    texts("")
    rows, left_out, below = chosen(found, facts(atlas.findings))
    names = [verdict.behaviour.name for verdict in found]
    names += [score.behaviour for _, score in rows] + [one.behaviour for one in examples]
    behaviours = {one.name: i for i, one in enumerate(in_order(names))}
    decides = deciding(found)
    told = [row_of(score, heads, behaviours, series, texts, decides) for _, score in rows]
    return {
        "heads": sites,
        "behaviours": [looks_of(name) for name in behaviours],
        "questions": list(QUESTIONS.values()),
        "rungs": list(RUNGS.values()),
        "series": list(series.of),
        "rows": told,
        "labels": [label_of(head, heads, behaviours, texts) for verdict in found for head in verdict.labels],
        "texts": list(texts.of),
        "examples": [_example(one, heads, behaviours) for one in examples],
        "left_out": left_out,
        "below": below,
    }


def deciding(found: Sequence[Verdict]) -> set[tuple[str, str, str]]:
    """Which series labels rest on: behaviour, measure, material."""
    return {(v.behaviour.name, *series) for v in found for head in v.heads[:1] for series in head.decides}


def chosen(found: Sequence[Verdict], also: Sequence[Facts]) -> tuple[list[tuple[Head | None, Score]], int, str]:
    """The rows that are embedded, in the order of the findings; how many are not; and below what share of the floor those lie."""
    rows: list[tuple[Head | None, Score]] = [
        (head, score) for v in found for head in (*v.heads, *v.groups) for score in head.scores
    ]
    told = [score for one in also for score in one.scores]
    rows += [(None, score) for score in told if BEHAVIOURS.get(behaviour_of(score.behaviour).kin, behaviour_of("")).told]
    if len(rows) <= ROWS:
        return rows, 0, ""
    ranked = sorted(range(len(rows)), key=lambda i: -_worth(*rows[i]))[:ROWS]
    below = _worth(*rows[ranked[-1]])
    kept = set(ranked)
    return [row for i, row in enumerate(rows) if i in kept], len(rows) - ROWS, numbers.rounded(below)


def _worth(head: Head | None, score: Score) -> float:
    """How near to its floor: labels and what stands out before everything, partners far below their floors last."""
    over = score.effect / score.floor if score.floor and numbers.known(score.effect) else 0.0
    return np.inf if (head is not None and head.rung) or score.stands_out or score.about.tries else over


def row_of(
    score: Score, heads: dict[str, int], behaviours: dict[str, int], series: Numbered, texts: Numbered, decides: set
) -> list[Any]:
    """One row; see the top of this file."""
    about = score.about
    key = (
        behaviours[score.behaviour],
        subject(score),
        list(QUESTIONS).index(about.question),
        word(score.material),
        score.unit,
        score.null_kind,
        f"≤ {numbers.rounded(score.bound)}" if score.measure == "collateral" else numbers.constant(score.floor),
        score.n,
        int((score.behaviour, *score.series) in decides),
        about.title if about.tries else "",
        about.of_pair,
        about.by_pair,
        int(behaviour_of(score.behaviour).family != ""),
    )
    row = [
        heads.get(score.site, score.site),
        series(key),
        numbers.rounded(score.raw),
        numbers.rounded(score.compared),
        float(f"{score.effect:.4g}") if numbers.known(score.effect) else None,
        numbers.estimate(score.effect, score.low, score.high),
        numbers.q_value(score.q),
        int(score.stands_out),
        score.rung,
        texts(score.note),
        [heads[one] for one in heads_in(score.target) if one in heads],
    ]
    while row[-1] in (0, [], numbers.NOTHING):
        row.pop()
    return row


def looks_of(name: str) -> list[Any]:
    """How a behaviour is called and shown."""
    one = behaviour_of(name)
    return [one.name, one.title, one.says, one.kin, one.colour, one.mark, int(one.quiet)]


def label_of(head: Head, heads: dict[str, int], behaviours: dict[str, int], texts: Numbered) -> list[Any]:
    """A label as `[head, behaviour, rung, q, note]`."""
    return [heads[head.site], behaviours[head.behaviour], head.rung, numbers.q_value(head.q), texts(head.note)]


def _example(one: Example, heads: dict[str, int], behaviours: dict[str, int]) -> list[Any]:
    """An example as `[head, behaviour, unit, tokens, query, pattern, raised, lowered, rows]`."""
    return [
        heads.get(one.site, one.site),
        behaviours[one.behaviour],
        one.unit,
        [visible(token) for token in one.tokens],
        -1 if one.query is None else one.query,
        _packed(one.pattern),
        changed(one.raised),
        changed(one.lowered),
        [[visible(read), visible(token), numbers.rounded(logit)] for read, token, logit in one.rows],
    ]


def _packed(pattern: np.ndarray) -> str:
    rows = np.nan_to_num(pattern.astype(np.float64))[np.tril_indices(len(pattern))]
    return base64.b64encode(np.round(rows.clip(0, 1) * 255).astype(np.uint8).tobytes()).decode()


def changed(tokens: Iterable[tuple[str, float]]) -> list[list[str]]:
    """Tokens with by how much their logits are changed."""
    return [[visible(token), f"{'+' if logit > 0 else ''}{numbers.rounded(logit)}"] for token, logit in tokens]
