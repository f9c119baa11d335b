"""The attention chapter: which heads do what, and what depends on them."""

from innerworks.heads.kinds import KINDS, Kind
from innerworks.heads.patterns import Patterns

__all__ = ["KINDS", "Kind", "Patterns"]
