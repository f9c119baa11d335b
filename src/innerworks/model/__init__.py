"""The model chapter: load a model, look at its anatomy, run it, record it, edit it, and prove that all this is right."""

from innerworks.model.anatomy import Anatomy
from innerworks.model.certificate import Certificate, Check
from innerworks.model.edit import Change, Edit, Mean, ablate, freeze, knockout, patch, scale, steer
from innerworks.model.load import load
from innerworks.model.model import Model
from innerworks.model.run import Run

__all__ = ["Anatomy", "Certificate", "Change", "Check", "Edit", "Mean", "Model", "Run"]
__all__ += ["ablate", "freeze", "knockout", "load", "patch", "scale", "steer"]
