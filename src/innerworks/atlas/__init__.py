"""The atlas chapter: what was found, in a folder that opens in a second, without torch."""

from innerworks.atlas.store import Atlas, Example, Unfinished

__all__ = ["Atlas", "Example", "Unfinished"]
