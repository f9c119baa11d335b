"""Does a model have plain neurons in every layer, and can it be read what they write, so that they can be asked anything?"""

from innerworks.model import Model


def lacking(model: Model, *, weights: bool = True) -> str:
    """Why a model's neurons cannot be asked, or nothing.

    weights: also what is asked of the weights: what an ablation removes is matched by what neurons write.
    """
    missing = next((why for layer in range(model.anatomy.layers) if (why := model.lacks("neurons", layer))), "")
    if missing:
        return f"not every layer has plain neurons: {missing}"
    return (model.weights.unreadable or "") if weights else ""
