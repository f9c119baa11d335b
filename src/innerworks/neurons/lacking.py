"""Does a model have plain neurons in every layer, so that they can be asked anything?"""

from innerworks.model import Model


def lacking(model: Model) -> str:
    """Why a model's neurons cannot be asked, or nothing."""
    missing = next((why for layer in range(model.anatomy.layers) if (why := model.lacks("neurons", layer))), "")
    return f"not every layer has plain neurons: {missing}" if missing else ""
