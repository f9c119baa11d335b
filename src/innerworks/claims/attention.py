"""Claims about attention heads, A1 to A12.

What each clause reads: a behaviour and a measure of `findings.parquet`. A clause whose rows an atlas does not hold is open.
"""

from typing import TYPE_CHECKING

from innerworks.claims.claim import Claim
from innerworks.claims.rules import both, more, some

if TYPE_CHECKING:
    import polars

OFFSETS = ("previous_token", "current_token", "offset_2", "offset_3")


def labelled(rows: "polars.DataFrame") -> "polars.DataFrame":
    """Only the heads that bear the label: what others do in context is no evidence for what the labelled ones do."""
    import polars as pl

    return rows.filter(pl.col("rung") >= 1)


def of_sinks(rows: "polars.DataFrame") -> "polars.DataFrame":
    """Only heads that bear the label of a sink themselves."""
    import polars as pl

    return rows.filter(pl.col("note").str.contains("a labelled sink"))


def to_the_head(rows: "polars.DataFrame") -> "polars.DataFrame":
    """Only looks along a syntactic relation from the dependent to its head: `syntactic:obj`."""
    import polars as pl

    return rows.filter(~pl.col("behaviour").str.ends_with("<"))


def to_dependents(rows: "polars.DataFrame") -> "polars.DataFrame":
    """Only looks from the head to its dependents: `syntactic:nsubj<`."""
    import polars as pl

    return rows.filter(pl.col("behaviour").str.ends_with("<"))


ATTENTION = (
    Claim(
        id="A1",
        title="positional heads",
        statement="Some heads attend to a fixed relative position: the previous token above all, also the current, the first "
        "and other offsets.",
        citation="Voita et al. 2019, arXiv:1905.09418",
        clauses=(
            some("heads at a fixed offset, on text and on random tokens", OFFSETS),
            some("a previous-token head is among them", "previous_token"),
            some("heads on the first token", "first_token"),
            some("one of them is necessary", "previous_token", rung=2),
        ),
    ),
    Claim(
        id="A2",
        title="subword joiners",
        statement="Some heads join the subwords of one word.",
        citation="Correia et al. 2019, arXiv:1909.00015; Ferrando and Voita 2024, arXiv:2403.00824",
        clauses=(
            some("heads that look at earlier pieces of the same word, beyond the same offsets across words", "subword_joiner"),
            more("also at pieces that are not the neighbour", "subword_joiner", "attention_far"),
            some("one of them is necessary", "subword_joiner", rung=2),
        ),
    ),
    Claim(
        id="A3",
        title="syntactic heads",
        statement="Some heads follow syntactic relations, in each direction that a causal mask allows.",
        citation="Clark et al. 2019, arXiv:1906.04341; Voita et al. 2019, arXiv:1905.09418",
        clauses=(
            some("heads that find a relation better than the best fixed offset", "syntactic:"),
            more("from a word to the one it depends on", "syntactic:", "attention", which=to_the_head),
            more("and from a word to those that depend on it", "syntactic:", "attention", which=to_dependents),
            some("one of them is necessary for agreement", "syntactic:", rung=2),
        ),
    ),
    Claim(
        id="A4",
        title="duplicate-token heads",
        statement="Duplicate-token heads attend to earlier copies of the current token.",
        citation="Wang et al. 2022, arXiv:2211.00593",
        clauses=(
            some("heads that look at earlier copies, on text and on random tokens", "duplicate_token"),
            some("one of them is necessary", "duplicate_token", rung=2),
        ),
    ),
    Claim(
        id="A5",
        title="copying heads",
        statement="Copying heads: the OV circuit raises what is attended to.",
        citation="Elhage et al. 2021, transformer-circuits.pub/2021/framework",
        clauses=(
            some(
                "heads whose OV circuit copies, beyond mismatched circuits, and which raise in context what they look at",
                "copying",
                measure="eigenvalue",
            ),
            some("also by the rank of the token itself", "copying", measure="top_k"),
        ),
    ),
    Claim(
        id="A6",
        title="induction heads",
        statement="Induction heads complete A B ... A with B.",
        citation="Olsson et al. 2022, arXiv:2209.11895",
        clauses=(
            some("heads that look at what followed the current token last time", "induction"),
            some("one of them is necessary for second copies", "induction", rung=2),
            some("and losing it harms ordinary text little", "induction", rung=3),
            both("one that is necessary copies", "induction", "copying", rung=2),
        ),
    ),
    Claim(
        id="A7",
        title="K-composition",
        statement="Induction heads work with a previous-token head earlier in the stream, by K-composition.",
        citation="Elhage et al. 2021, transformer-circuits.pub/2021/framework; Olsson et al. 2022, arXiv:2209.11895",
        clauses=(
            more(
                "without a previous-token head's output in its keys alone, an induction head loses its match",
                "induction",
                "k_composition",
                denies=False,  # only the strongest receivers and senders are asked
            ),
            more("such a pair: more than without it in its queries", "induction", "k_over_q", among="k_composition"),
            more("such a pair: it loses most of it", "induction", "k_composition_share", among="k_composition"),
            more("such a pair: path patching agrees", "induction", "path_patching", among="k_composition"),
        ),
    ),
    Claim(
        id="A8",
        title="copy suppression",
        statement="Copy-suppression heads lower the logit of a token that is in context and confidently predicted, which "
        "improves calibration.",
        citation="McDougall et al. 2023, arXiv:2310.04625",
        clauses=(
            some("heads whose OV circuit anti-copies, and which look at what is about to be predicted", "copy_suppression"),
            some("without one, naive copying rises", "copy_suppression", rung=2),
            more("and calibration suffers", "copy_suppression", "calibration"),
        ),
    ),
    Claim(
        id="A9",
        title="successor heads",
        statement="Successor heads increment ordinals, reading a numeric structure made by the first feed-forward layer.",
        citation="Gould et al. 2023, arXiv:2312.09230",
        clauses=(
            some(
                "heads whose OV circuit maps an ordinal to its successor, also in context, on ordinal lists",
                "successor",
                measure="succession",
            ),
            more("without the first feed-forward's part they do not", "successor", "through_first_mlp", which=labelled),
        ),
    ),
    Claim(
        id="A10",
        title="domain heads",
        statement="Some heads serve a domain (a language, code, ...).",
        citation="Ferrando and Voita 2024, arXiv:2403.00824",
        clauses=(some("heads whose loss harms one domain beyond the others", "domain:", measure="harm_contrast"),),
    ),
    Claim(
        id="A11",
        title="attention sinks",
        statement="Attention sinks: heads rest on the first token or punctuation when their function has nothing to do.",
        citation="Xiao et al. 2023, arXiv:2309.17453",
        clauses=(
            some("heads that rest on the first token", "first_token"),
            more("less so where the head's own behaviour applies", "attention_sink", "sink_contrast", which=of_sinks),
            more("beyond what the position of those places explains", "attention_sink", "sink_beyond_position", which=of_sinks),
            some("heads that look at punctuation", "punctuation"),
        ),
    ),
    Claim(
        id="A12",
        title="sinks and streaming",
        statement="Sinks matter for streaming: a window without the first tokens breaks, with a few sink tokens it does not.",
        citation="Xiao et al. 2023, arXiv:2309.17453",
        clauses=(
            more("a window without the first tokens loses more than one with four of them", "streaming", "loss_without_sinks"),
            more("generation goes on past the window", "streaming", "generation"),
            more("with four sink tokens the loss is close to that of full recomputation", "streaming", "closeness_with_sinks"),
        ),
    ),
)
