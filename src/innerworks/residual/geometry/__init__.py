"""What shape does the residual stream have, and which of its dimensions stick out? See `study.py`.

1. Watch (`watch.py`): how large each dimension is on each document, against directions drawn at random (`sizes.py`).
2. Look at a sample of tokens (`cloud.py`): how alike they are, with and without such dimensions; over how many dimensions they
   spread; what the dimensions go with (`encode.py`).
3. Remove (`removal.py`): what it costs to set the dimensions to zero or to their mean, against others and other directions.
4. Decide (`decide.py`, `decide_cloud.py`, `decide_removal.py`), as pure arithmetic.
"""

from innerworks.residual.geometry.study import Geometry

__all__ = ["Geometry"]
