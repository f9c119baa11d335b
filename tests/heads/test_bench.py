"""Selectivity asks no more of controls than its verdict needs."""

import numpy as np
import pytest

from innerworks.heads.bench import NOTHING, Bench
from innerworks.heads.harms import Harm
from innerworks.stats import selectivity

UNITS, CONTROLS = 24, 20
COPIES = Harm(metric="second_copy_loss", nats="second_copy_loss", elsewhere="unmatched_loss")


@pytest.mark.parametrize("elsewhere", [0.0, 0.008, 0.012, 0.02, 0.05])
@pytest.mark.parametrize("here", [0.03, 0.5])
def test_controls_are_run_until_the_verdict_is_settled_and_it_is_that_of_all(here: float, elsewhere: float) -> None:
    verdicts, asked = set(), 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        spread = random.uniform(0, 0.05)
        harms = {(9, 0): {"second_copy_loss": here, "unmatched_loss": elsewhere}}
        harms |= {(4, number): {"unmatched_loss": random.uniform(0, spread)} for number in range(CONTROLS)}
        noise = {head: 0.004 * random.normal(size=UNITS) for head in harms}
        runs: list[tuple[int, int]] = []

        def without(heads, metric, harms=harms, noise=noise, runs=runs):
            runs.extend(head for head in heads if head[0] == 4)
            return sum((harms[head].get(metric, 0.0) + noise[head] for head in heads), np.zeros(UNITS))

        strata = {"text": ["a"] * UNITS, "random": ["r"] * UNITS}
        bench = Bench(without=without, strata=strata, watchers=[], suspects=set(), removed={})
        pairs = [(frozenset([head]), NOTHING) for head in harms]
        found = bench.selectivity(pairs[0], pairs[1:], COPIES, 0)
        asked += len(runs)
        own, outside = (bench.harm(pairs[0], metric) for metric in ("second_copy_loss", "unmatched_loss"))
        means = [float(bench.harm(pair, "unmatched_loss").mean()) for pair in pairs[1:]]
        whole = selectivity(own, strata["random"], outside, strata["text"], np.array(means), 0)
        assert found.verdict == whole.verdict and found.ratio == whole.ratio and found.limit < 1
        against_it = found.verdict == "fail" and found.ratio_high >= 3
        assert found.limit >= whole.limit if against_it else found.limit <= whole.limit
        verdicts.add(found.verdict)
    assert verdicts and asked < 20 * CONTROLS
