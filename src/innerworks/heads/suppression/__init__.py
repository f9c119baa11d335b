"""Do heads lower what is in the text and about to be predicted? Copy suppression, McDougall et al. 2023, arXiv:2310.04625.

1. Look (`look.py`, `documents.py`): patterns, values and the logit lens at the heads that anti-copy by their weights.
2. See (`attention.py`): attention on what is about to be predicted, over two nulls.
3. Intervene (`ablations.py`, `cspa.py`): calibration without them, who steps in, and the share of their effect that is copy
   suppression.
4. Decide (`decide.py`), from the arrays alone; `study.py` is all of it as a study of a scan.
"""

from innerworks.heads.suppression.decide import findings
from innerworks.heads.suppression.study import Suppression

__all__ = ["Suppression", "findings"]
