"""Claims about the residual stream, R3 to R5: dimensions that stick out, and what depends on them.

What each clause reads: a behaviour and a measure of `findings.parquet`. A clause whose rows an atlas does not hold is open.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from innerworks.claims.claim import Claim
from innerworks.claims.rules import more, some

if TYPE_CHECKING:
    import polars


def _ablated(how: str) -> Callable[["polars.DataFrame"], "polars.DataFrame"]:
    """Only rows of this ablation."""

    def which(rows: "polars.DataFrame") -> "polars.DataFrame":
        import polars as pl

        return rows.filter(pl.col("ablation") == how)

    return which


def _of_the_model(rows: "polars.DataFrame") -> "polars.DataFrame":
    """Only what is said of all layers together."""
    import polars as pl

    return rows.filter(pl.col("site") == "model")


RESIDUAL = (
    Claim(
        id="R3",
        title="rogue dimensions",
        statement="A few dimensions of the stream are of outsize magnitude.",
        citation="Kovaleva et al. 2021, arXiv:2105.06990; Timkey and van Schijndel 2021, arXiv:2109.04404",
        clauses=(
            some(
                "dimensions that stick out on ordinary tokens as no direction drawn at random does",
                "rogue_dimension",
                measure="robust_z",
            ),
        ),
    ),
    Claim(
        id="R4",
        title="anisotropy",
        statement="Representations of different tokens point the same way, largely because of rogue dimensions.",
        citation="Ethayarajh 2019, arXiv:1909.00512; Timkey and van Schijndel 2021, arXiv:2109.04404",
        clauses=(
            more("tokens of different documents point the same way", "anisotropy", "mean_cosine"),
            more(
                "in layers that have rogue dimensions more than half of that is owed to them",
                "anisotropy",
                "owed",
                which=_of_the_model,
            ),
        ),
    ),
    Claim(
        id="R5",
        title="rogue dimensions matter",
        statement="Taking rogue dimensions out hurts far more than taking out other dimensions.",
        citation="Kovaleva et al. 2021, arXiv:2105.06990; Sun et al. 2024, arXiv:2402.17762",
        clauses=(
            more(
                "set to zero, they cost more than as many other dimensions",
                "rogue_dimension",
                "dimension_harm",
                which=_ablated("zero"),
                denies=False,
            ),
            more(
                "and more than as large a change along other directions",
                "rogue_dimension",
                "direction_harm",
                which=_ablated("zero"),
                denies=False,
            ),
            more(
                "set to their means, they cost more than as many other dimensions",
                "rogue_dimension",
                "dimension_harm",
                which=_ablated("mean"),
                denies=False,
            ),
            more(
                "and more than as large a change along other directions (means)",
                "rogue_dimension",
                "direction_harm",
                which=_ablated("mean"),
                denies=False,
            ),
        ),
    ),
)
