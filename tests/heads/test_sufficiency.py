"""One head put back alone, on invented ablations: what carries a group is known, and so is what only leaks."""

from collections.abc import Iterable

import numpy as np
import pytest

from innerworks.findings import Finding
from innerworks.heads.ablation import RESTORED, Rotated
from innerworks.heads.bench import Bench
from innerworks.heads.effect import Effort, climb
from innerworks.heads.harms import Head

LAYERS, HEADS, UNITS = 6, 8, 24
CARRIER, IDLE, LEFT, RIGHT = (2, 1), (3, 5), (2, 3), (3, 3)
EFFORT = Effort(candidates=None, shared_controls=False, joint=True, units={}, text_tokens=8, sufficiency=True)
SEEN = dict(chapter="heads", measure="attention", material="random", value=0.5, unit="probability", n=30, null=0.0)


class Model:
    """Harm comes of CARRIER, half as much of LEFT and of RIGHT; any head that is put back brings back `leak` of what is lost."""

    def __init__(self, *, leak: float = 0.0, seed: int = 0, noise: float = 0.003) -> None:
        random = np.random.default_rng(seed)
        self.base = 2 + random.random(UNITS)
        self.small = noise * random.normal(size=(LAYERS, HEADS, UNITS))
        self.varying = 1 + 0.1 * random.normal(size=UNITS)
        self.leak = leak

    def without(self, heads: Iterable[Head | Rotated], metric: str) -> np.ndarray:
        heads = list(heads)
        gone = {one for one in heads if len(one) == 2}
        back = {one[:2] for one in heads if len(one) == 3 and one[2] == RESTORED}
        lost = (CARRIER in gone) + 0.5 * (LEFT in gone) + 0.5 * (RIGHT in gone)
        harm = lost * (1 - self.leak * bool(back)) if metric == "second_copy_loss" else 0.0
        noise = sum((self.small[one] for one in gone), np.zeros(UNITS))
        return self.base + harm * self.varying + noise

    def climbed(self, heads: list[Head], *, effort: Effort = EFFORT) -> list[Finding]:
        bench = Bench(
            without=self.without,
            strata={"text": ["a"] * UNITS, "random": ["r"] * UNITS},
            watchers=[],
            suspects={CARRIER, IDLE, LEFT, RIGHT},
            removed={material: np.ones((LAYERS, HEADS)) for material in ("text", "random")},
        )
        return climb([_seen(head, 0.8 - 0.05 * i) for i, head in enumerate(heads)], bench, effort, 0)

    def shares(self, heads: list[Head]) -> dict[str, Finding]:
        return {one.site: one for one in self.climbed(heads) if one.measure == "sufficiency"}


def _seen(head: Head, effect: float) -> Finding:
    numbers = dict(effect=effect, effect_low=effect, effect_high=effect, floor=0.1, p=0.0, mde=0.1, q=0.0)
    site = f"L{head[0]}H{head[1]}"
    return Finding(**SEEN, **numbers, behaviour="induction", site=site, layer=head[0], index=head[1], null_kind="swap", rung=1)  # pyright: ignore[reportArgumentType]


def test_the_head_that_carries_everything_suffices_and_its_idle_sibling_does_not() -> None:
    for seed in range(3):
        found = Model(seed=seed).shares([CARRIER, IDLE])
        carrier, idle = found["L2H1"], found["L3H5"]
        assert carrier.q is not None and carrier.q < 1e-3 and carrier.note.startswith("suffices")
        assert carrier.value == pytest.approx(1, abs=0.02) and carrier.effect == pytest.approx(1, abs=0.02)
        assert carrier.effect_low <= carrier.effect <= carrier.effect_high and carrier.effect_low > carrier.floor == 0.5
        assert (
            idle.value == pytest.approx(0, abs=0.02)
            and idle.q == 1.0
            and idle.note.startswith("not shown to suffice: by itself no more than half")
        )
        assert carrier.target == idle.target == "L2H1, L3H5" and carrier.n == UNITS and carrier.mde is not None


def test_of_two_heads_that_share_the_work_neither_suffices() -> None:
    found = Model().shares([LEFT, RIGHT])
    assert {round(one.value, 1) for one in found.values()} == {0.5}
    assert all(one.q is not None and one.q > 0.05 for one in found.values())


def test_what_any_clean_output_brings_back_is_no_sufficiency() -> None:
    found = Model(leak=0.7).shares([IDLE, CARRIER])
    idle = found["L3H5"]
    assert idle.value == pytest.approx(0.7, abs=0.05) and idle.null == pytest.approx(0.7, abs=0.05)
    assert idle.effect == pytest.approx(0, abs=0.05) and (idle.q or 0.0) > 0.05
    assert found["L2H1"].value == pytest.approx(1, abs=0.02) and (found["L2H1"].q or 0.0) > 0.05  # 0.3 beyond controls


def test_nothing_is_asked_of_a_group_that_is_not_needed() -> None:
    assert Model().shares([IDLE, (1, 1)]) == {}
    assert Model(noise=0.05).shares([IDLE, (1, 1)]) == {}


def test_only_depths_that_ask_for_it_put_heads_back() -> None:
    plain = Effort(candidates=None, shared_controls=False, joint=True, units={}, text_tokens=8)
    found, asked = (Model().climbed([CARRIER, IDLE], effort=effort) for effort in (plain, EFFORT))
    assert found == [one for one in asked if one.measure != "sufficiency"]


def test_rungs_do_not_depend_on_sufficiency() -> None:
    rungs = {one.site: one.rung for one in Model().climbed([CARRIER, IDLE]) if one.measure == "attention"}
    assert rungs == {"L2H1": 3, "L3H5": 1}


def test_heads_that_bring_back_just_half_are_false_in_one_atlas_of_twenty_at_most() -> None:
    """LEFT and RIGHT lie on the floor exactly: the worst null. 20 draws at a rate of .05 have 4 or more with p .016."""
    false = 0
    for seed in range(20):
        found = Model(seed=seed, noise=0.2).shares([LEFT, RIGHT, IDLE, (1, 1)])
        false += any(one.q is not None and one.q <= 0.05 for one in found.values())
    assert false <= 3
