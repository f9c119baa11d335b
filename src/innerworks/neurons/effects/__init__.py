"""Does anything depend on the neurons that respond to something? See `study.py`.

1. Where is a neuron's family on: after which tokens, at which positions? Chosen on discovery (`families.py`).
2. Which neurons might predictions there depend on? One backward pass for all of them, on discovery (`screen.py`).
3. What do predictions lose there, and elsewhere, when a neuron, or the strongest of a kind, are at their mean (`ablate.py`)?
4. Decide (`decide.py`): beyond matched controls, and little elsewhere? Labels rise to rungs 2 and 3.
"""

from innerworks.neurons.effects.decide import findings
from innerworks.neurons.effects.study import Effects

__all__ = ["Effects", "findings"]
