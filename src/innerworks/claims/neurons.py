"""Claims about feed-forward neurons, F1 to F12.

What each clause reads: a behaviour and a measure of `findings.parquet`. A clause whose rows an atlas does not hold is open.
"""

from innerworks.claims.claim import Claim
from innerworks.claims.rules import more, some

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
)
