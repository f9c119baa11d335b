"""What a person sees of one prompt: the same value in a terminal (rich), in a notebook, as one HTML page, and as plain data.

lens      which token each layer would name at each position
shares    which parts of the model gave a token its logit
terminal  both, as things that rich can print at any width
page      both, as HTML that loads nothing and runs no script
"""

from innerworks.show.prompt.lens import Guess, Place, PromptLens
from innerworks.show.prompt.page import write
from innerworks.show.prompt.shares import Named, PromptShares, Share

__all__ = ["Guess", "Named", "Place", "PromptLens", "PromptShares", "Share", "write"]
