"""What do heads write, given what they read? Copying, anti-copying and successor heads, by their weights and in context.

1. Measure (`measure.py`): scores of every head's OV circuit through the effective embedding (`embedding.py`, `copying.py`,
   `successor.py`), those of mismatched parts (`nulls.py`), and direct effects in context (`direct.py`).
2. Decide (`decide.py`): labels need both the weights and the context.

arrays = measure(model, seen=state)         # of a DirectEffect that has watched a pass
found = findings(arrays, units)             # a function of what an atlas keeps
"""

from innerworks.heads.circuits.decide import findings
from innerworks.heads.circuits.direct import DirectEffect
from innerworks.heads.circuits.embedding import refusal
from innerworks.heads.circuits.measure import measure

__all__ = ["DirectEffect", "findings", "measure", "refusal"]
