"""Everything that an atlas knows about one feed-forward neuron, gathered for a page: in a terminal, in the report, or as JSON.

1. Its labels with their rungs, and what they come to in a few words (`describe.py`); without any, what came nearest to one.
2. Every score, under the question that it answers: what it responds to, what it writes, what breaks without it. Groups that were
   tried together count for each of their members.
3. Its numbers, which every neuron has: how much of its activation each family of features explains, how large it gets.
4. Where it is strongest on real text, and the tokens that it raises and lowers there.
"""

import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from innerworks.atlas import Atlas, NeuronExample
from innerworks.atlas import neurons as every
from innerworks.errors import UnknownSite
from innerworks.show.describe import described
from innerworks.show.head import labels_of, nearest_of, rest_of, scores_of
from innerworks.show.verdicts import CEILING, Head, Score, score_of, verdicts
from innerworks.sites import Site

CHAPTER = "neurons"

#: question -> how a neuron's page asks it; the last of those for heads is not asked of neurons
QUESTIONS = {"looks": "What it responds to", "writes": "What it writes", "breaks": "What breaks without it"}

#: family of features (`innerworks.atlas.neurons`) -> what it asks
FAMILIES = {
    "position": "where the token stands",
    "token": "which of the common tokens it is",
    "previous_token": "which of them stands before it",
    "token_class": "what sort of token it is",
    "alphabet": "which letter it begins with",
    "frequency": "how frequent it is",
}


@dataclass(frozen=True, kw_only=True)
class NeuronPage:
    """One neuron."""

    site: str
    layer: int
    index: int
    layers: int
    neurons: int  # per layer
    says: str  # what its labels come to; nothing without any
    labels: tuple[Head, ...]  # the highest rung first
    nearest: Head | None  # what came nearest to a label
    scores: dict[str, tuple[Score, ...]]  # by question, those of labels first
    left_out: dict[str, int]  # by family: how many scores lie too far below their floor to be listed
    numbers: dict[str, Any]  # its row of `atlas.neurons`; empty where neurons were not watched
    example: NeuronExample | None

    @property
    def explained(self) -> list[tuple[str, float]]:
        """By how much each family of features explains its activation, the most first."""
        shares = [(name, share) for name, share in self.numbers.items() if name not in every.COLUMNS and share is not None]
        return sorted(shares, key=lambda pair: -pair[1])


def neuron_page_of(atlas: Atlas, site: str | Site) -> NeuronPage:
    """Gather the page of a neuron. Raises UnknownSite for what is no neuron of this model, or where none was measured."""
    place = Site.parse(site)
    layers, neurons = _known(atlas, place)
    assert place.layer is not None and place.neuron is not None
    name = str(Site(layer=place.layer, neuron=place.neuron))
    mine = atlas.findings.filter((pl.col("chapter") == CHAPTER) & _about(name))
    found = verdicts(atlas.findings.filter(pl.col("behaviour").is_in(mine["behaviour"].unique().implode())), CHAPTER)
    measured = [head for verdict in found for head in verdict.heads if head.site == name]
    scores, left_out = scores_of(measured, [*rest_of(mine, found, name, CHAPTER), *_together(mine, name)])
    example = next((one for one in atlas.neuron_examples if one.site == name), None)
    labels = labels_of(measured)
    return NeuronPage(
        site=name,
        layer=place.layer,
        index=place.neuron,
        layers=layers,
        neurons=neurons,
        says=described(labels, example),
        labels=labels,
        nearest=nearest_of(measured),
        scores={question: scores[question] for question in QUESTIONS},
        left_out=left_out,
        numbers=next(atlas.neurons.filter(pl.col("site") == name).iter_rows(named=True), {}),
        example=example,
    )


def _known(atlas: Atlas, site: Site) -> tuple[int, int]:
    """How many layers there are, and how many neurons in each; or an error that says which."""
    if site.layer is None or site.neuron is None or site.expert is not None or site.kind is not None:
        raise UnknownSite(f"{site} is not a feed-forward neuron, such as L3N5. Neurons of experts have no pages.")
    model = atlas.manifest.get("model", {})
    layers, neurons = int(model.get("layers", 0)), int(model.get("neurons", 0))
    if not neurons or not measured(atlas):
        raise UnknownSite(f"There is no page for {site}: this atlas has no neurons, only attention heads, such as L0H0.")
    if site.layer >= layers or site.neuron >= neurons:
        last = Site(layer=layers - 1, neuron=neurons - 1)
        raise UnknownSite(
            f"There is no {site} in this atlas: the model has {layers} layers of {neurons} neurons, "
            f"L0N0 to {last} (both count from zero)."
        )
    return layers, neurons


def measured(atlas: Atlas) -> bool:
    """Was anything measured of neurons?"""
    return not atlas.findings.filter(pl.col("chapter") == CHAPTER).is_empty() or not atlas.neurons.is_empty()


def _about(name: str) -> pl.Expr:
    return (pl.col("site") == name) | pl.col("target").fill_null("").str.contains(rf"\b{re.escape(name)}\b")


def _together(findings: pl.DataFrame, name: str) -> list[Score]:
    """What was tried of groups that this neuron is in."""
    of_groups = findings.filter((pl.col("site") != name) & (pl.col("measure") != CEILING))
    return [score_of(row) for row in of_groups.iter_rows(named=True)]


def as_json(page: NeuronPage, findings: pl.DataFrame) -> dict[str, object]:
    """Return the whole page as plain data; every finding of the neuron is in it."""
    return {
        "site": page.site,
        "says": page.says,
        "labels": [
            {"behaviour": head.behaviour, "title": head.title, "rung": head.rung, "q": head.q, "note": head.note}
            for head in page.labels
        ],
        "numbers": page.numbers,
        "findings": findings.fill_nan(None).filter((pl.col("chapter") == CHAPTER) & _about(page.site)).to_dicts(),
        "example": None if page.example is None else page.example.as_dict(),
    }
