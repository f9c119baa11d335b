"""The kinds of neuron that what they respond to can show, and what must be exceeded.

Shares are of a neuron's variance that a family of features explains beyond all others, on documents (and, where the token itself
decides, on token types, which are then units beside documents) that the fit has not seen. Floors were fixed before any label of a
trained model was seen: those of the written statistics (.05 of the variance; .05 nats of information about the position, .095
of a Gaussian's variance; .50 for single tokens), or 1.5 times the 99.9 % quantile of untrained models where that is more
(docs/log.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from innerworks.neurons.inputs.detectors import SHARES

SHARE = 0.05  # of variance
OF_POSITION = 0.16  # on text; untrained models with position embeddings: .108 at the 99.9 % quantile
GENERATED = 0.26  # the same on random tokens: .174
SHIFTED = GENERATED / 2  # at least half of that goes with the position when the text is shifted
ALPHABET = 0.08  # untrained: .052
CLASS = 0.20  # untrained: .135; few token types make up most of a text
SINGLE = 0.66  # for the common tokens; untrained: .443
DETECTOR = 0.95  # of firings, and of a trigger's occurrences, as Voita et al. ask; untrained: .99 of the one, .93 of the other
FIRING = 0.50  # of them for sure: that it is .95 for sure would take 200 documents that hold the trigger, among 1,000 candidates
DEAD = 0.80  # share of documents in which a dead neuron is shown never to fire; 40 documents cannot show .90 beside other kinds
NEAR_DEAD = 1e-3  # of the median norm of the stream: a neuron that never writes more hardly writes at all

SHIFT = ("shifted", "position")
SHUFFLE = ("shuffled", "previous_token")
AGAIN = {SHIFT: "shift", SHUFFLE: "shuffle"}  # what candidates are read again for -> where what it shows is kept
OVER_TYPES = "over_types"  # with token types as units (`buckets.py`)
COUNTED = ("triggers", "pairs")  # of tokens that fire a neuron shares are counted, not variance

Test = tuple[str, str]  # a fit (or an experiment), and what is tested with it


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of neuron: every test must exceed its floor for sure, and come to `least` as far as was seen."""

    behaviour: str
    tests: Mapping[Test, float]
    least: float = 0.0


KINDS = (
    Kind(
        behaviour="position_neuron",
        tests={("full", "position"): OF_POSITION, ("generated", "position"): GENERATED, SHIFT: SHIFTED},
    ),
    Kind(behaviour="previous_token_neuron", tests={("full", "previous_token"): SHARE, SHUFFLE: SHARE}),
    Kind(behaviour="alphabet_neuron", tests={("types", "alphabet"): ALPHABET, (OVER_TYPES, "alphabet"): ALPHABET}),
    Kind(behaviour="token_class_neuron", tests={("types", "token_class"): CLASS, (OVER_TYPES, "token_class"): CLASS}),
    Kind(behaviour="token_neuron", tests={("full", "token"): SINGLE}),
    Kind(behaviour="token_detector", tests={test: FIRING for test in SHARES if test[0] == "triggers"}, least=DETECTOR),
    Kind(behaviour="pair_detector", tests={test: FIRING for test in SHARES if test[0] == "pairs"}, least=DETECTOR),
)
