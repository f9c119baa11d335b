"""Does a model have plain neurons in every layer, so that they can be asked anything?"""

from collections.abc import Iterable

from innerworks.model import Model


def lacking(model: Model, layers: Iterable[int] | None = None) -> str:
    """Why a model's neurons (of these layers) cannot be asked, or nothing."""
    missing = next((why for layer in layers or range(model.anatomy.layers) if (why := model.lacks("neurons", layer))), "")
    return f"not every layer has plain neurons: {missing}" if missing else ""
