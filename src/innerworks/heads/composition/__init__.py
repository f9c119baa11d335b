"""Composition of heads: whose output does a head read? By weights (`scores`, `qk`), in context (`removal`, `path_patching`)."""

from innerworks.heads.composition.decide import FLOORS, findings
from innerworks.heads.composition.measure import measure
from innerworks.heads.composition.path_patching import patched_streams
from innerworks.heads.composition.plan import Plan, plan, plans
from innerworks.heads.composition.qk import duplicates, previous_tokens
from innerworks.heads.composition.removal import Bench
from innerworks.heads.composition.scores import can_compose
from innerworks.heads.composition.study import Composition
from innerworks.heads.composition.written import Writing

__all__ = [
    "FLOORS",
    "Bench",
    "Composition",
    "Plan",
    "Writing",
    "can_compose",
    "duplicates",
    "findings",
    "measure",
    "patched_streams",
    "plan",
    "plans",
    "previous_tokens",
]
