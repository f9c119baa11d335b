"""Claims about feed-forward neurons, F1 to F12.

What each clause reads: a behaviour and a measure of `findings.parquet`. A clause whose rows an atlas does not hold is open.
"""

from typing import TYPE_CHECKING

from innerworks.claims.claim import Claim
from innerworks.claims.rules import more, some

if TYPE_CHECKING:
    import polars


def without_relu(findings: "polars.DataFrame") -> str | None:
    """Why nobody can be dead in this model, with how many nearly are; None where activations can be exactly zero."""
    import polars as pl

    rows = findings.filter((pl.col("measure") == "near_dead_share") & (pl.col("site") == "model"))
    if rows.is_empty():
        return None
    return f"activations fall below zero: this is no ReLU, and none is dead. Near-dead: {rows['note'][0]}"


NEURONS = (
    Claim(
        id="F1",
        title="position neurons",
        statement="Some neurons fire on ranges of positions, whatever stands there.",
        citation="Voita et al. 2023, arXiv:2309.04827",
        clauses=(
            some(
                "neurons that tell the position, on text, on random tokens and when these are shifted",
                "position_neuron",
                measure="variance_explained",
            ),
        ),
    ),
    Claim(
        id="F7",
        title="n-gram detectors",
        statement="Early neurons detect single tokens or n-grams, and most of the early ones respond to several.",
        citation="Voita et al. 2023, arXiv:2309.04827; Gurnee et al. 2023, arXiv:2305.01610",
        clauses=(
            some("neurons that fire on one to five tokens and on little else", "token_detector", measure="on_triggers"),
            more("most of these lie in the first half of the layers", "polysemantic_neuron", "early_share"),
            some("neurons of whose variance single common tokens explain half", "token_neuron", measure="variance_explained"),
            more(
                "most early neurons are strongest on several different tokens",
                "polysemantic_neuron",
                "several_tokens",
                denies=False,  # a description without a test
            ),
        ),
    ),
    Claim(
        id="F8",
        title="dead neurons",
        statement="Models with ReLU have neurons that never fire.",
        citation="Voita et al. 2023, arXiv:2309.04827",
        applies=without_relu,
        clauses=(some("neurons that are zero at every token of the text", "dead_neuron", measure="never_fires"),),
    ),
    Claim(
        id="F10",
        title="alphabet neurons",
        statement="Some neurons tell the first letter of the token.",
        citation="Gurnee et al. 2024, arXiv:2401.12181",
        clauses=(
            some(
                "neurons of whose variance the first letter explains a share, on tokens they were not fitted on",
                "alphabet_neuron",
                measure="variance_explained",
            ),
        ),
    ),
    Claim(
        id="F11",
        title="previous-token neurons",
        statement="Some neurons tell the token before the current one.",
        citation="Gurnee et al. 2024, arXiv:2401.12181",
        clauses=(
            some(
                "neurons of whose variance the token before explains a share, beyond the current one",
                "previous_token_neuron",
                measure="variance_explained",
            ),
        ),
    ),
)
