"""From labelled heads to the matches that everything about composition in context is decided from.

For every receiver of the plan: its match as it is; without each sender and each control in its keys, and in its queries; without
all senders together, against groups; and with each of them patched on the path to its keys. Arrays are plain numbers per
sequence, kept by name, so that a scan can stop and go on, and be decided again:
`match/L18H6/clean`, `match/L18H6/keys/L3H2`, `match/L18H6/queries/L3H2`, `match/L18H6/path/L3H2`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from innerworks.heads.composition.path_patching import patched_streams
from innerworks.heads.composition.plan import Plan, name_of
from innerworks.heads.composition.removal import Bench, Reads
from innerworks.heads.composition.written import Sender
from innerworks.heads.harms import Head
from innerworks.sites import head_site

Matches = dict[str, np.ndarray]
Step = Callable[[Matches, int, int], None]  # what is there so far, how many runs are done, of how many
READS: tuple[Reads, ...] = ("keys", "queries")


def key(receiver: Head, how: str, senders: Sequence[Sender] = ()) -> str:
    """The name of an array."""
    return "/".join(["match", head_site(*receiver), how, *([name_of(senders)] if senders else [])])


def measure(
    bench: Bench, plans: Sequence[Plan], *, paths: bool = True, done: Matches | None = None, step: Step = lambda *_: None
) -> Matches:
    """Remove and patch what the plans ask for. done: what was measured before an interruption."""
    found: Matches = dict(done or {})
    removed: list[tuple[Plan, tuple[Sender, ...], Reads]] = [
        (plan, some, reads) for plan in plans for some in plan.removals for reads in READS
    ]
    patched = {sender: [plan for plan in plans if sender in _patched(plan)] for plan in plans for sender in _patched(plan)}
    total = len(plans) + len(removed) + (sum(map(len, patched.values())) if paths else 0)
    for plan in plans:
        found.setdefault(key(plan.receiver, "clean"), bench.clean_match(plan.receiver))
    written: dict[tuple[Sender, ...], Float[Tensor, "batch seq d_model"]] = {}
    for plan, some, reads in removed:
        name = key(plan.receiver, reads, some)
        if name not in found:
            if some not in written:
                written = {some: bench.writing.of(some)}  # keys and queries follow each other
            found[name] = bench.reading(plan.receiver, written[some], reads=reads)
            step(found, len(found), total)
    for sender, asking in patched.items() if paths else ():
        missing = [plan for plan in asking if key(plan.receiver, "path", [sender]) not in found]
        streams = patched_streams(bench, sender, [plan.receiver[0] for plan in missing]) if missing else {}
        for plan in missing:
            found[key(plan.receiver, "path", [sender])] = bench.instead(plan.receiver, streams[plan.receiver[0]])
        step(found, len(found), total)
    return found


def _patched(plan: Plan) -> list[Head]:
    """Heads of the model whose paths are patched: rotations of a head have no path of their own."""
    return [*plan.senders, *((one[0], one[1]) for one in plan.controls if len(one) == 2)]
