"""Claims about feed-forward neurons, F1 to F12.

What each clause reads: a behaviour and a measure of `findings.parquet`. A clause whose rows an atlas does not hold is open.
"""

from innerworks.claims.claim import Claim
from innerworks.claims.rules import more, some

NEURONS = (
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
