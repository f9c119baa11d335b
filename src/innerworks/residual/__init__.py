"""The residual chapter: what the stream carries, and how to read it.

- `prompts`     one prompt: which token each layer would name (`lens`), which parts gave a token its logit (`shares`)
"""

from innerworks.residual.prompts import lens, shares

__all__ = ["lens", "shares"]
