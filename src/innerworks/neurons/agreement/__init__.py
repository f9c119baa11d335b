"""Which neurons keep verbs in agreement with their subjects? See `study.py`.

1. Contribution (`measure.py`): what the logits of the right verb forms, less those of the wrong ones, owe to every neuron, by one
   backward pass per batch of prompts, on both halves of the templates.
2. Ablation: the strongest are ablated exactly, each against 20 matched controls, then together against 20 matched groups.
3. Decide (`decide.py`): t over templates, and whether losing a neuron costs other text little.
"""

from innerworks.neurons.agreement.decide import findings
from innerworks.neurons.agreement.study import Agreement

__all__ = ["Agreement", "findings"]
