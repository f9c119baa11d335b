"""Which neurons carry a fact? See `study.py`.

1. Facts (`facts.py`): a few relations, each asked for in several ways; some ways find the neurons, the others test them.
2. Attribution (`gradients.py`): integrated gradients of the answer's probability over each layer's neurons at the last token; of
   a fact, the neurons that several ways of asking have in common (`refine.py`).
3. Interventions (`move.py`): those neurons are silenced and doubled, beside matched neurons, on other facts and on agreement.
4. Decide (`decide.py`): t over facts.
"""

from innerworks.neurons.knowledge.decide import findings
from innerworks.neurons.knowledge.study import Knowledge

__all__ = ["Knowledge", "findings"]
