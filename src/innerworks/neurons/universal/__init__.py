"""Universal neurons: which neurons of one model have their like in another one?

`stretches.py` which tokens of two tokenizers are the same place · `activations.py` what every neuron does there, some layers at a
time · `match.py` the best match of each neuron, and of each among rotated neurons · `agreement.py` how well both agree on other
documents · `universality.py` all of it, in order, and what it comes to.
"""

from innerworks.neurons.universal.stretches import Stretch, Texts, texts_of
from innerworks.neurons.universal.universality import Universality, findings, multiplications, universality

__all__ = ["Stretch", "Texts", "Universality", "findings", "multiplications", "texts_of", "universality"]
