"""The scan chapter: a model in, an atlas out."""

from innerworks.scan.again import decide_again
from innerworks.scan.plan import Plan, plan
from innerworks.scan.run import Step, prepare, scan
from innerworks.scan.stages import measure

__all__ = ["Plan", "Step", "decide_again", "measure", "plan", "prepare", "scan"]
