"""Attention sinks in full: where heads rest, when they give way, how little is read there, and how long the stream is there.

1. `contrast.py`: heads with another label rest less on the first token where that label has something to look at.
2. `watch.py`: an instrument of the shared pass; the same contrast under other documents' patterns, the length of what is read
   at the first token, and of the stream there.
3. `decide.py`, `study.py`: rows with intervals over documents.
"""

from innerworks.heads.sinks.contrast import FLOOR, findings
from innerworks.heads.sinks.study import Sinks
from innerworks.heads.sinks.watch import Resting

__all__ = ["FLOOR", "Resting", "Sinks", "findings"]
