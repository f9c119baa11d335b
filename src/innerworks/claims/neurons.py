"""Claims about feed-forward neurons, F1 to F12.

What each clause reads: a behaviour and a measure of `findings.parquet`. A clause whose rows an atlas does not hold is open.
"""

from innerworks.claims.claim import Claim
from innerworks.claims.rules import more, some

PRECISION = "average_precision"

NEURONS = (
    Claim(
        id="F2",
        title="skill neurons",
        statement="Skill neurons tell what kind of text is read (code, a language, ...), and that kind is lost without them.",
        citation="Wang et al. 2022, arXiv:2211.07349",
        clauses=(
            some(
                "single neurons that tell a kind of text, also on documents they were not chosen on",
                "skill:",
                measure="predictivity",
            ),
            more("one activation late in the text is enough", "skill:", "predictivity_late", denies=False),
            more(
                "without the best of them that kind of text is lost, beyond other neurons", "skill:", "group_harm", denies=False
            ),
            some("and other kinds are hardly harmed", "skill:", rung=3, measure="group_harm"),
        ),
    ),
    Claim(
        id="F3",
        title="concept neurons",
        statement="Some neurons are specific to a concept: a class of words or a grammatical form.",
        citation="Suau et al. 2020, arXiv:2005.07647; Gurnee et al. 2023, arXiv:2305.01610",
        clauses=(
            some(
                "neurons that single out a concept, in words and sentences they were not chosen on", "concept:", measure=PRECISION
            ),
            more("a probe of one neuron tells a concept", "concept:", "probe"),
            more("held at what they do where it is there, they make the model speak of it", "concept:", "forcing", denies=False),
        ),
    ),
)
