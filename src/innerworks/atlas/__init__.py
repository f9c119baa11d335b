"""The atlas chapter: what was found, in a folder that opens in a second, without torch."""

from innerworks.atlas.store import Atlas, Context, Example, NeuronExample, Unfinished

__all__ = ["Atlas", "Context", "Example", "NeuronExample", "Unfinished"]
