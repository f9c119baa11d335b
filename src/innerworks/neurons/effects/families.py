"""Where is the family of a labelled neuron on? The rows at which its kind says that it does something.

1. A kind asks about one family of features (`inputs/design.py`): the position, the token before, the first letter, ...
2. From the sums of discovery: how far is the neuron's mean activation where a feature is on from its mean everywhere? The feature
   that makes most of its variance, `rows * (mean there - mean)²`, comes first; with it go those that move it the same way, at
   least half as far. The family is on where one of them is.
3. Of token detectors they are the triggers, which discovery chose as well.

A neuron may be furthest from its mean where it is low: the sign of an activation means nothing by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, isin, tensor

from innerworks.findings import Finding
from innerworks.model.observe import State
from innerworks.model.study import Given
from innerworks.neurons.inputs import Inputs, detectors
from innerworks.neurons.inputs.design import Design
from innerworks.neurons.necessity import Neuron

HALF = 0.5  # as far as the feature that moves a neuron most: the same share of a peak at which detectors fire
NAMED = 6  # features named in a note

DETECTOR = "token_detector"
#: kind of neuron -> the family of features that it is labelled by, and how one says where that is on
FAMILIES = {
    "position_neuron": ("position", "the position is"),
    "previous_token_neuron": ("previous_token", "the token before is"),
    "alphabet_neuron": ("alphabet", "the first letter is"),
    "token_class_neuron": ("token_class", "the token is of the class"),
    "token_neuron": ("token", "the token is"),
    DETECTOR: ("", "the token is"),
}

Label = tuple[str, Neuron]  # a kind, and who has it


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where one neuron is asked about. columns: of the design; tokens: of a detector; says: the same in words."""

    behaviour: str
    neuron: Neuron
    says: str
    columns: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()

    def on(self, tokens: Int[Tensor, "batch seq"], features: Float[Tensor, "batch seq column"]) -> Bool[Tensor, "batch seq"]:
        """Rows at which one of its features, or of its tokens, is there."""
        if self.tokens:
            return isin(tokens, tensor(self.tokens, device=tokens.device))
        return (features[..., list(self.columns)] > 0).any(dim=-1)


def labels_of(findings: Sequence[Finding]) -> list[Label]:
    """The labels that are asked about, in the order of their kinds."""
    found = {
        (one.behaviour, (one.layer, one.index))
        for one in findings
        if one.behaviour in FAMILIES and one.rung and one.layer is not None and one.index is not None
    }
    return sorted(found, key=lambda label: ([*FAMILIES].index(label[0]), label[1]))


def families_of(given: Given, design: Design) -> list[Family]:
    """The family of each label, from the sums of discovery."""
    state, labels = given.states[Inputs.name], labels_of(given.before)
    moved = Moved.of(state)
    triggers = detectors.choose(state["strongest"][0], given.reading).triggers
    found = [_detector(given, one, triggers) if one[0] == DETECTOR else _of_features(design, one, moved) for one in labels]
    return [one for one in found if one.columns or one.tokens]


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How far each feature moves each neuron from its mean on discovery, and at how many rows it is on."""

    by: Float[np.ndarray, "layer column neuron"]
    rows: Float[np.ndarray, " column"]

    @classmethod
    def of(cls, state: State) -> "Moved":
        """From the sums of the study of inputs, whose first column is a constant."""
        gram, product = (state[name].sum(dim=0).double().numpy(force=True) for name in ("gram", "product"))
        rows = np.diagonal(gram)
        mean = product / np.maximum(rows, 1.0)[:, None]
        return cls(by=np.where(rows[:, None] > 0, mean - mean[:, :1], 0.0), rows=rows)


def _of_features(design: Design, label: Label, moved: Moved) -> Family:
    behaviour, (layer, neuron) = label
    family, says = FAMILIES[behaviour]
    columns = np.array(design.places(family))
    by = moved.by[layer, columns, neuron]
    most = by[int((moved.rows[columns] * by**2).argmax())]
    alike = columns[(by * np.sign(most) >= HALF * abs(most)) & (moved.rows[columns] > 0)] if most else columns[:0]
    names = [design.columns[column][1] for column in alike.tolist()]
    return Family(behaviour=behaviour, neuron=(layer, neuron), columns=tuple(alike.tolist()), says=_said(says, names))


def _detector(given: Given, label: Label, triggers: Int[np.ndarray, "layer neuron trigger"]) -> Family:
    behaviour, neuron = label
    tokens = tuple(int(token) for token in triggers[neuron] if token >= 0)
    names = [str(given.model.tokenizer.decode([token])) for token in tokens]
    return Family(behaviour=behaviour, neuron=neuron, tokens=tokens, says=_said(FAMILIES[behaviour][1], names))


def _said(says: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{says} {', '.join(repr(name) for name in names[:NAMED])}{more}"
