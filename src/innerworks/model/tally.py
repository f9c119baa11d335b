"""How much is done, of how much? Counts what a study has done, for the progress of a scan."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True)
class Tally:
    """Call it with how much has just been done; it says how much that makes, and of how much."""

    says: Callable[[int, int], None]
    total: int
    done: int = 0

    def __call__(self, some: int = 1) -> None:
        """Add it up."""
        self.done += some
        self.says(self.done, self.total)
