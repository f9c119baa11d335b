"""The scan chapter: a model in, an atlas out. `innerworks.scan(...)` is `innerworks.scan.scan(...)`."""

import sys
from types import ModuleType

from innerworks.scan.again import decide_again
from innerworks.scan.plan import Plan, plan
from innerworks.scan.run import Step, prepare, scan
from innerworks.scan.studies import measure, studies

__all__ = ["Plan", "Step", "decide_again", "measure", "plan", "prepare", "scan", "studies"]


class _Chapter(ModuleType):
    """Once this package is imported, the name `innerworks.scan` is the package: it can be called like the function."""

    __call__ = staticmethod(scan)


sys.modules[__name__].__class__ = _Chapter
