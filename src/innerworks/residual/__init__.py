"""The residual chapter: what the stream carries, and how to read it.

- `prompts`     one prompt: which token each layer would name (`lens`), which parts gave a token its logit (`shares`)
- `tuned_lens`  an affine map per layer that translates its stream for the model's own last step; on disk
- `tuning`      trains one on a corpus
- `divergence`  how far a lens is from what the model says in the end
- `geometry`    the shape of the stream, as a study of a scan
"""

from innerworks.residual.prompts import lens, shares
from innerworks.residual.tuned_lens import HeldOut, TunedLens
from innerworks.residual.tuning import tune

__all__ = ["HeldOut", "TunedLens", "lens", "shares", "tune"]
