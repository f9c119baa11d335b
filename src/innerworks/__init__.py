"""innerworks, a scanner for language models: which of the known inner workings are at work in this one?

    import innerworks as iw

    model = iw.load()                                             # the default specimen, or any Hugging Face causal LM
    run = model.run("The cat sat on the mat.", record=["L5H3.pattern"])
    atlas = iw.scan(model, out="smollm2.atlas")                   # findings with nulls, intervals and causal tests

Names are imported when first used: `import innerworks` is quick, and an atlas opens without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load": "innerworks.model",
    "Model": "innerworks.model",
    **dict.fromkeys(("ablate", "patch", "steer", "scale", "knockout", "freeze"), "innerworks.model"),
    "collect": "innerworks.model.collect",
    "Activations": "innerworks.model.collect",
    "Site": "innerworks.sites",
    "Corpus": "innerworks.text",
    "scan": "innerworks.scan",
    "Atlas": "innerworks.atlas",
    "heads": "innerworks",
    "phantoms": "innerworks",
    "residual": "innerworks",
}

__all__ = ["Activations", "Atlas", "Corpus", "Model", "Site", "ablate", "collect", "freeze", "heads", "knockout", "load"]
__all__ += ["patch", "phantoms", "residual", "scale", "scan", "steer"]

if TYPE_CHECKING:
    from innerworks import heads, phantoms, residual
    from innerworks.atlas import Atlas
    from innerworks.model import Model, ablate, freeze, knockout, load, patch, scale, steer
    from innerworks.model.collect import Activations, collect
    from innerworks.scan import scan
    from innerworks.sites import Site
    from innerworks.text import Corpus


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'innerworks' has no attribute {name!r}")
    home = _HOME[name]
    return import_module(f"innerworks.{name}") if home == "innerworks" else getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
