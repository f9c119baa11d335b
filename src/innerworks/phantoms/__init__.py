"""Known truth: tiny models whose heads and neurons were written by hand, to calibrate what claims to find such parts.

phantom = build("llama", seed=0)
phantom.truth["induction"]      # ('L4H3',)
phantom.hf, phantom.tokenizer   # an ordinary Hugging Face model and tokenizer
"""

from innerworks.phantoms.build import Phantom, build

__all__ = ["Phantom", "build"]
