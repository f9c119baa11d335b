"""What do feed-forward neurons respond to? All of them, in the one pass over the text: see `watch.py` and `study.py`."""

from innerworks.neurons.inputs.study import NeuronInputs
from innerworks.neurons.inputs.watch import Inputs

__all__ = ["Inputs", "NeuronInputs"]
