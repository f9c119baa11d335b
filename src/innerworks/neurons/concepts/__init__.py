"""Which neurons are specific to a concept (a colour, a country, a plural, a negation)? See `study.py`.

1. Respond (`respond.py`): the most every neuron does on sentences of which it is known what they hold.
2. Rank (`precision.py`): average precision of each neuron, chosen on some words and frames, tested on others.
3. Probe (`probe.py`): how many neurons of a layer it takes.
4. Force (`force.py`): is more said of it when its neurons are held at what they do where it is there?
5. Decide (`decide.py`).
"""

from innerworks.neurons.concepts.study import Concepts

__all__ = ["Concepts"]
