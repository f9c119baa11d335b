"""Tasks: prompts written here, each beside one that differs in a single word, whose right and wrong answers are known."""

from innerworks.text.tasks.agreement import agreement
from innerworks.text.tasks.pairs import Pair

__all__ = ["Pair", "agreement"]
