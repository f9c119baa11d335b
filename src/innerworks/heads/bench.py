"""Where harm is read off: recorded ablations, the units they were measured on, and who may be a control.

Pure arithmetic: a harm is what one set of ablated heads costs more than another, per unit.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from innerworks.heads.ablation import Heads, Rotated
from innerworks.heads.harms import Harm, Head, material_of, metric_of
from innerworks.stats import Array, Necessity, Selectivity, collateral_limit, harm_alone, necessity, selectivity

Without = Callable[[Iterable[Head | Rotated], str], Array]  # (heads ablated, metric) -> the metric per unit
Pair = tuple[Heads, Heads]  # harm is what the first ablation costs more than the second
NOTHING: Heads = frozenset()
UNBOUNDED = 1e6  # nats: more than any control can harm


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where harm is read off: the ablations, what is known of their units, and who may be a control.

    strata: of the units, per material. watchers: the confirmed induction heads, whose match is recorded. suspects: candidates
    of every kind tested by ablation. removed: norm of what an ablation removes, per material `[layer, head]`. absent: material
    -> why this model has none.
    """

    without: Without
    strata: Mapping[str, Sequence[str]]
    watchers: Sequence[Head]
    suspects: Collection[Head]
    removed: Mapping[str, Array]
    absent: Mapping[str, str] = field(default_factory=dict)

    def harm(self, pair: Pair, metric: str) -> Array:
        """Harm per unit of one metric."""
        rise = self.without(pair[0], metric) - self.without(pair[1], metric)
        return -rise if metric_of(metric).falls else rise

    def lacks(self, harm: Harm) -> str | None:
        """Why a harm cannot be measured here; None where it can."""
        missing = [material for material in harm.materials if material not in self.strata]
        return self.absent.get(missing[0], f"no {missing[0]} at this depth") if missing else None

    def own(self, pair: Pair, harm: Harm) -> Necessity:
        """What is known of a harm that is not compared with controls: its size, and whether it exceeds the floor (`p_units`)."""
        mine = self.harm(pair, harm.metric)
        units, strata = self.measured(mine, harm.metric)
        return harm_alone(mine[units], strata)

    def rival(self, pair: Pair, controls: Sequence[Pair], harm: Harm) -> Pair | None:
        """The first control that harms as much; none of those after it is looked at."""
        mine = self.harm(pair, harm.metric)
        units, _ = self.measured(mine, harm.metric)
        as_much = (one for one in controls if self.harm(one, harm.metric)[units].mean() >= mine[units].mean())
        return next(as_much, None)

    def necessity(self, pair: Pair, controls: Sequence[Pair], harm: Harm, *, overlap: float = 1.0) -> Necessity:
        """Test the harm of one ablation against that of its controls."""
        mine = self.harm(pair, harm.metric)
        theirs = np.stack([self.harm(control, harm.metric) for control in controls])
        units, strata = self.measured(mine, harm.metric)
        return necessity(mine[units], theirs[:, units], strata, overlap=overlap)

    def selectivity(self, pair: Pair, controls: Sequence[Pair], harm: Harm, seed: int) -> Selectivity:
        """Test the harm of one ablation against its harm where the behaviour does not apply.

        What controls harm there can only raise the limit. They are run where the verdict depends on it, and only until it is
        settled, whatever the others would harm; the limit is then the least or the largest that it can be, against the verdict.
        """
        here, outside = self.harm(pair, harm.nats), self.harm(pair, harm.elsewhere)
        units, strata = self.measured(here, harm.nats)
        others, their_strata = self.measured(outside, harm.elsewhere)

        found = selectivity(here[units], strata, outside[others], their_strata, np.zeros(1), seed)
        known: list[float] = []
        while True:
            unknown = len(controls) - len(known)
            least, most = (replace(found, limit=collateral_limit([*known, *[bound] * unknown])) for bound in (0.0, UNBOUNDED))
            if least.verdict == most.verdict:
                return most if most.verdict == "fail" and most.limit < UNBOUNDED / len(controls) else least
            known.append(float(self.harm(controls[len(known)], harm.elsewhere)[others].mean()))

    def measured(self, harm: Array, metric: str) -> tuple[NDArray[np.bool_], list[str]]:
        """The units that have the metric, and their strata; all where hardly any has: their NaN decides nothing."""
        units = np.isfinite(harm)
        units |= units.sum() < 2
        return units, [name for name, has in zip(self.strata[material_of(metric)], units, strict=True) if has]
