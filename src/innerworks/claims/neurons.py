"""Claims about feed-forward neurons, F1 to F12.

What each clause reads: a behaviour and a measure of `findings.parquet`. A clause whose rows an atlas does not hold is open.
"""

from innerworks.claims.claim import Claim
from innerworks.claims.rules import more, share, some

SECOND_MODEL = "a scan sees one model; lay two side by side with: innerworks universal A B"

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
        id="F4",
        title="knowledge neurons",
        statement="Knowledge neurons carry facts: without a fact's neurons its answer becomes unlikely, doubled they make it "
        "likelier, and other facts hardly change.",
        citation="Dai et al. 2022, arXiv:2104.08696; Niu et al. 2024, arXiv:2405.02421",
        clauses=(
            more("without its neurons a fact is less likely in other words, beyond matched neurons", "knowledge", "suppression"),
            more("and beyond what they do to facts of other relations", "knowledge", "suppression_own"),
            more("doubled, they make it likelier, beyond matched neurons", "knowledge", "amplification"),
            more("and beyond what that does to facts of other relations", "knowledge", "amplification_own"),
            more("they matter to facts three times as much as to agreement", "knowledge", "beyond_agreement"),
        ),
    ),
    Claim(
        id="F5",
        title="agreement neurons",
        statement="Some neurons keep predictions grammatical: the number of the verb is owed to them.",
        citation="Finlayson et al. 2021, arXiv:2106.06087; Ferrando et al. 2023, arXiv:2305.12535",
        clauses=(
            some("neurons that contribute to the right number of the verb", "agreement", measure="contribution"),
            some("one of them is necessary", "agreement", measure="contribution", rung=2),
            more("the strongest together are necessary, beyond matched groups", "agreement", "joint_harm"),
            some("and losing it harms ordinary text little", "agreement", measure="contribution", rung=3),
        ),
    ),
    Claim(
        id="F9",
        title="universal neurons",
        statement="1-5 % of neurons are universal across models: another model, from another seed, has their like.",
        citation="Gurnee et al. 2024, arXiv:2401.12181",
        clauses=(
            share("at least 1 % of neurons", "universal_neuron", "universal_share", least=0.01, without=SECOND_MODEL),
            share("and at most 5 %", "universal_neuron", "universal_share", most=0.05, without=SECOND_MODEL),
        ),
    ),
)
