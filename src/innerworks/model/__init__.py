"""The model chapter: load a model, look at its anatomy, run it, record it, edit it, and prove that all this is right."""

from innerworks.model.anatomy import Anatomy
from innerworks.model.certificate import Certificate, Check
from innerworks.model.edit import Edit, Mean, ablate, patch
from innerworks.model.load import load
from innerworks.model.model import Model
from innerworks.model.run import Run

__all__ = ["Anatomy", "Certificate", "Check", "Edit", "Mean", "Model", "Run", "ablate", "load", "patch"]
