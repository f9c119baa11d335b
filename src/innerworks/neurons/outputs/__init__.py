"""What do neurons write, and what is it for? By their weights against the unembedding, and by what predictions lose without them.

`study.py` the neurons that shape the whole prediction: its uncertainty (entropy neurons) and its distance from token frequencies.
`vocabulary.py` the neurons that raise or lower a few tokens, or divide the vocabulary.
"""

from innerworks.neurons.outputs.study import Outputs
from innerworks.neurons.outputs.vocabulary import Vocabulary

__all__ = ["Outputs", "Vocabulary"]
