"""Claims about feed-forward neurons, F1 to F12.

What each clause reads: a behaviour and a measure of `findings.parquet`. A clause whose rows an atlas does not hold is open.
"""

from typing import TYPE_CHECKING

from innerworks.claims.claim import Claim, Clause
from innerworks.claims.rules import counted, more, share, some

if TYPE_CHECKING:
    import polars

SECOND_MODEL = "a scan sees one model; lay two side by side with: innerworks universal A B"
PRECISION = "average_precision"


def needed(behaviour: str) -> Clause:
    """Is the loss of what a kind responds to higher without one of its neurons, or without the strongest of them together?

    Few are asked, so that nothing follows from none of them being needed.
    """
    return more("predictions depend on some of them, alone or jointly", behaviour, ("harm", "joint_harm"), denies=False)


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
            needed("position_neuron"),
        ),
    ),
    Claim(
        id="F2",
        title="skill neurons",
        statement="Skill neurons tell what kind of text is read (code, a language, ...), and that kind is lost without them.",
        citation="Wang et al. 2022, arXiv:2211.07349",
        clauses=(
            more(
                "without the neurons that tell it best a kind of text is lost, beyond other neurons",
                "skill:",
                "group_harm",
                denies=False,
            ),
            some("and other kinds are hardly harmed", "skill:", rung=3, measure="group_harm"),
            some(
                "single neurons that tell a kind of text better than those of untrained models, on new documents",
                "skill:",
                measure="predictivity",
            ),
            more("one activation late in the text is enough", "skill:", "predictivity_late", denies=False),
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
        id="F6",
        title="token-frequency neurons",
        statement="Token-frequency neurons move the prediction towards or away from how frequent tokens are anyway.",
        citation="Stolfo et al. 2024, arXiv:2406.16254",
        clauses=(
            some(
                "neurons that write along the frequency direction, and without which predictions lie elsewhere from frequencies",
                "token_frequency",
                measure="unigram_effect",
            ),
            more("the effect on the loss goes along that direction", "token_frequency", "frequency_mediated", denies=False),
            more("beyond matched neurons", "token_frequency", "harm", denies=False),
        ),
    ),
    Claim(
        id="F7",
        title="n-gram detectors",
        statement="Early neurons detect single tokens or n-grams, and most of the early ones respond to several.",
        citation="Voita et al. 2023, arXiv:2309.04827; Gurnee et al. 2023, arXiv:2305.01610",
        clauses=(
            some(
                "neurons that fire on one to five tokens, or pairs of tokens, and on little else",
                ("token_detector", "pair_detector"),
                measure="on_triggers",
            ),
            more(
                "most of these lie in the first half of the layers (told, not tested: neurons of one layer are not independent)",
                "polysemantic_neuron",
                "early_share",
                denies=False,
            ),
            some(
                "neurons of whose variance single common tokens explain two thirds", "token_neuron", measure="variance_explained"
            ),
            more(
                "most early neurons are strongest on several different tokens (told, not tested: so is nearly any random neuron)",
                "polysemantic_neuron",
                "several_tokens",
                denies=False,
            ),
            needed("token_detector"),
        ),
    ),
    Claim(
        id="F8",
        title="dead neurons",
        statement="Models with ReLU have neurons that never fire.",
        citation="Voita et al. 2023, arXiv:2309.04827",
        applies=without_relu,
        clauses=(
            counted("neurons that are zero at every token of the text", "dead_neuron", measure="never_fires", count="dead_share"),
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
            needed("alphabet_neuron"),
        ),
    ),
    Claim(
        id="F11",
        title="previous-token neurons",
        statement="Some neurons tell the token before the current one.",
        citation="Gurnee et al. 2024, arXiv:2401.12181",
        clauses=(
            some(
                "neurons of whose variance the token before explains a share, beyond the current one, in shuffled text, too",
                "previous_token_neuron",
                measure="variance_explained",
            ),
            needed("previous_token_neuron"),
        ),
    ),
    Claim(
        id="F12",
        title="entropy neurons",
        statement="Entropy neurons set the uncertainty of the prediction through the scale of the final norm.",
        citation="Stolfo et al. 2024, arXiv:2406.16254; Gurnee et al. 2024, arXiv:2401.12181",
        clauses=(
            some(
                "neurons that write where the unembedding hardly looks, and without which the entropy is another",
                "entropy",
                measure="entropy_effect",
            ),
            more("most of it goes through the scale of the final norm", "entropy", "norm_mediated", denies=False),
            more("beyond matched neurons", "entropy", "harm", denies=False),
        ),
    ),
)
