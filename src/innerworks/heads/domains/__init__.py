"""Which heads serve one domain (a language, code, ...) and little else? See `study.py`.

1. Screen (`screen.py`): on discovery documents, one backward pass each estimates what the loss of every head would cost.
2. Test (`harm.py`): the most promising pairs of head and domain are ablated for real, on confirmation documents.
3. Decide (`decide.py`, `contrast.py`): two-sample t over documents, and the ratio of the harm here to the harm elsewhere.
"""

from innerworks.heads.domains.contrast import Contrast, contrast
from innerworks.heads.domains.decide import findings
from innerworks.heads.domains.harm import harms
from innerworks.heads.domains.screen import estimates, promising
from innerworks.heads.domains.study import Domains

__all__ = ["Contrast", "Domains", "contrast", "estimates", "findings", "harms", "promising"]
