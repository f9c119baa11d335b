"""The two kinds of neuron whose work is the whole prediction, what decides about each, and the floors, fixed beforehand.

*Entropy neurons* write where the unembedding hardly looks and set the uncertainty through the scale of the final norm (Stolfo et
al. 2024, arXiv:2406.16254; Gurnee et al. 2024, arXiv:2401.12181). *Token-frequency neurons* move the prediction towards or away
from how frequent tokens are anyway (Stolfo et al.).
"""

from dataclasses import dataclass

from innerworks.stats import CONSTANTS


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind. weights: the score of `weigh.py` that picks it; quantity: what its loss changes; past: the part of a change that
    does not go the kind's own way.

    share: how much at least must go that way, in words: which. of: the quantity whose share it is.
    """

    name: str
    weights: str
    quantity: str
    effect: str  # measures of findings, by their names there
    way: str
    scored: str
    of: str
    past: str
    share: float
    in_words: str
    weight_floor: float


KINDS = (
    Kind(
        name="entropy",
        weights="hidden",
        quantity="entropy",
        effect="entropy_effect",
        way="norm_mediated",
        scored="hidden_share",
        of="entropy",
        past="entropy_frozen",
        share=0.5,  # more goes through the norm's scale than past it
        in_words="through the scale of the final norm",
        weight_floor=0.10,  # the share of a random direction is .1 (a hundredth of the directions): as much again
    ),
    Kind(
        name="token_frequency",
        weights="cosine",
        quantity="kl",
        effect="unigram_effect",
        way="frequency_mediated",
        scored="frequency_cosine",
        of="loss",
        past="loss_restored",
        share=0.25,  # a cosine of .5 has a quarter of its square along one direction out of hundreds
        in_words="along the frequency direction",
        weight_floor=0.10,  # as above
    ),
)
FLOOR = CONSTANTS.harm_floor  # nats per token: what counts as harm of a loss counts as change of an entropy
