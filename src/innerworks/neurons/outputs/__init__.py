"""What do neurons write, and what is it for? By their weights against the unembedding, and by what predictions lose without them.

`study.py` the neurons that shape the whole prediction: its uncertainty (entropy neurons) and its distance from token frequencies.
"""

from innerworks.neurons.outputs.study import Outputs

__all__ = ["Outputs"]
