"""The kinds of attention head that a pattern alone can show: what is measured, against which null, on which material.

A kind with two materials must pass on both: on real text alone function words pass for duplicates, on generated text alone a
head may do what no text asks of it. Floors are fixed here, before any model is seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

OFFSETS = range(9)
COLUMNS = range(9)
CONTENT = ("duplicate", "induction", "join", "join_far", "punctuation")
APPLIES = ("duplicate", "induction", "join")  # rows where these have targets, or none: does the sink give way?

#: Everything measured of a pattern, in the order of the arrays: attention mass per row, averaged over the rows that apply.
MEASURES = (
    *(f"offset_{o}" for o in OFFSETS),
    *(f"column_{c}" for c in COLUMNS),
    *(name for kind in CONTENT for name in (kind, f"{kind}_swapped")),
    "join_across",
    *(f"sink_{where}_{kind}" for kind in APPLIES for where in ("off", "at")),
)

Null = Literal["pattern swap", "other offset", "other column", "across words"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of head."""

    behaviour: str
    title: str
    measure: str
    null: Null
    floors: Mapping[str, float]  # material -> the effect that must be exceeded
    says: str
    source: str
    also: Null | None = None  # a second null, which must be beaten, too


KINDS: dict[str, Kind] = {
    kind.behaviour: kind
    for kind in (
        Kind(
            behaviour="previous_token",
            title="previous token",
            measure="offset_1",
            null="other offset",
            floors={"text": 0.05, "random": 0.10},
            says="looks one token back, whatever stands there",
            source="Voita et al. 2019, arXiv:1905.09418",
        ),
        Kind(
            behaviour="current_token",
            title="current token",
            measure="offset_0",
            null="other offset",
            floors={"text": 0.05, "random": 0.10},
            says="looks at the token itself",
            source="Voita et al. 2019, arXiv:1905.09418",
        ),
        Kind(
            behaviour="offset_2",
            title="two back",
            measure="offset_2",
            null="other offset",
            floors={"text": 0.05, "random": 0.10},
            says="looks two tokens back, whatever stands there",
            source="Voita et al. 2019, arXiv:1905.09418",
        ),
        Kind(
            behaviour="offset_3",
            title="three back",
            measure="offset_3",
            null="other offset",
            floors={"text": 0.05, "random": 0.10},
            says="looks three tokens back, whatever stands there",
            source="Voita et al. 2019, arXiv:1905.09418",
        ),
        Kind(
            behaviour="first_token",
            title="first token (sink)",
            measure="column_0",
            null="other column",
            floors={"text": 0.30},
            says="rests on the first token, and on no other fixed place",
            source="Xiao et al. 2023, arXiv:2309.17453",
        ),
        Kind(
            behaviour="duplicate_token",
            title="duplicate token",
            measure="duplicate",
            null="pattern swap",
            floors={"text": 0.02, "random": 0.10},
            says="looks at earlier copies of the current token",
            source="Wang et al. 2022, arXiv:2211.00593",
        ),
        Kind(
            behaviour="induction",
            title="induction",
            measure="induction",
            null="pattern swap",
            floors={"text": 0.02, "random": 0.10},
            says="looks at what followed the current token last time",
            source="Olsson et al. 2022, arXiv:2209.11895",
        ),
        Kind(
            behaviour="subword_joiner",
            title="subword joiner",
            measure="join",
            null="pattern swap",
            also="across words",
            floors={"text": 0.10},
            says="looks at earlier pieces of the same word",
            source="Correia et al. 2019, arXiv:1909.00015",
        ),
        Kind(
            behaviour="punctuation",
            title="punctuation",
            measure="punctuation",
            null="pattern swap",
            floors={"text": 0.10},
            says="looks at earlier punctuation",
            source="Clark et al. 2019, arXiv:1906.04341",
        ),
    )
}
