"""Sinks in full: norms are those computed by hand, a drift with position is no contrast, planted effects are found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from innerworks.claims.attention import ATTENTION
from innerworks.claims.claim import judge
from innerworks.findings import Finding, frame
from innerworks.heads import masks
from innerworks.heads.kinds import APPLIES
from innerworks.heads.sinks import Resting, Sinks, decide
from innerworks.heads.sinks.decide import LONGER, SHORTER
from innerworks.model.study import units_of
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading

DOCUMENTS = 80


def watched(model: Any, reading: Reading) -> dict[str, np.ndarray]:
    instrument = Resting(model)
    states = observe(model, reading, [instrument], begin(model, reading, [instrument])).states
    return {name: one.numpy() for name, one in states["sinks"].items()}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "bloom", "gptj"])
def test_norms_are_those_computed_by_hand(
    tiny_model: Callable[[str], Any], make_reading: Callable[..., Reading], family: str
) -> None:
    model, reading = tiny_model(family), make_reading(documents=6, sequences=2)
    found = watched(model, reading)
    own_code = model.adapter.attention_code == "own"
    for unit in range(6):
        windows = [window for window in reading.windows if window.unit == unit]
        assert found["windows"][unit] == len(windows)
        streams, values = [], []
        for window in windows:
            run = model.run(torch.tensor([window.tokens]), record=["L1.resid_post", *([] if own_code else ["L1.v"])])
            lengths = run["L1.resid_post"][0].norm(dim=-1)
            streams.append([float(lengths[0].log()), float(lengths[1:].median().log())])
            if not own_code:
                written = torch.einsum("she,hed->shd", run["L1.v"][0], model.weights.W_O(1)).norm(dim=-1)
                values.append(torch.stack([written[0].log(), written[1:].median(dim=0).values.log()]).detach().numpy())
        assert np.allclose(found["stream"][unit, :, 1], np.sum(streams, axis=0), atol=1e-4)
        if not own_code:
            assert np.allclose(found["value"][unit, :, 1], np.sum(values, axis=0), atol=1e-3)
    assert np.isfinite(found["value"]).all() and found["value"].any()
    assert not found["windows"][6:].any()  # generated repeats are left out


def test_resting_is_compared_on_the_same_rows(tiny_model: Callable[[str], Any], make_reading: Callable[..., Reading]) -> None:
    """By loops: rows of the document, under its own patterns and under those of the two documents after it."""
    model, reading = tiny_model("llama"), make_reading(documents=12, sequences=0, shortest=24, longest=40)
    found = watched(model, reading)
    rest, rows = np.zeros_like(found["rest"][..., 1, 2]), np.zeros_like(found["rest_rows"])
    for batch in [*reading.batches("discovery"), *reading.batches("confirmation")]:
        pattern = model.run(batch.tokens, mask=batch.mask, record="L1.pattern")["L1.pattern"][:, 2, :, 0].numpy(force=True)
        count = len(batch.tokens)
        for i, unit in enumerate(batch.units.tolist()):
            for step in (1, 2):
                other = (i + step) % count
                if batch.alike[i] == batch.alike[other]:
                    continue
                shared = [row for row in range(16, batch.mask.shape[1]) if batch.mask[i, row] and batch.mask[other, row]]
                for k, kind in enumerate(APPLIES):
                    applies = masks.TARGETS[kind](batch)[i].any(dim=1)
                    sorts = [[row for row in shared if bool(applies[row]) == at] for at in (False, True)]
                    if min(map(len, sorts)) == 0:
                        continue
                    for where, some in enumerate(sorts):
                        rest[unit, 0, k, where] += pattern[i, some].sum()
                        rest[unit, 1, k, where] += pattern[other, some].sum()
                        rows[unit, k, where] += len(some)
    assert np.array_equal(found["rest_rows"], rows) and rows.any()
    assert np.allclose(found["rest"][..., 1, 2], rest, atol=1e-4)


def made(
    *, contrast: float = 0.0, drift: float = 0.0, shorter: float = 0.0, longer: float = 0.0
) -> tuple[Any, Any, list[Finding]]:
    """Sums of two layers of three heads, L0H1 a labelled sink and labelled induction: each effect planted there (longer: L1)."""
    random = np.random.default_rng(0)
    units = [(f"d/{i}", f"domain {i % 5}", "text", ("discovery", "confirmation")[i // 5 % 2]) for i in range(DOCUMENTS)]
    value, stream = 0.1 * random.standard_normal((DOCUMENTS, 2, 2, 3)), 0.1 * random.standard_normal((DOCUMENTS, 2, 2))
    value[:, 0, 0, 1] -= shorter
    stream[:, 0, 1] += longer
    rest = 0.5 + 0.05 * random.standard_normal((DOCUMENTS, 2, len(APPLIES), 2, 2, 3))
    rest[:, :, :, 0, 0, 1] += drift  # rows without targets come earlier, whosesoever patterns they are held against
    rest[:, 0, :, 0, 0, 1] += contrast
    rows = np.full((DOCUMENTS, len(APPLIES), 2), 10.0)
    arrays = {"value": value, "stream": stream, "windows": np.ones(DOCUMENTS), "rest": 10 * rest, "rest_rows": rows}
    same: dict[str, Any] = dict(
        chapter="heads", site="L0H1", layer=0, index=1, material="text", value=0.6, unit="probability", effect=0.5,
        effect_low=0.4, effect_high=0.6, n=40, df=35, null=0.0, null_kind="other column", floor=0.3, p=0.0, mde=0.4, q=0.0,
    )  # fmt: skip
    sink = Finding(behaviour="first_token", measure="attention", rung=1, **same)
    there = Finding(behaviour="attention_sink", measure="sink_contrast", target="induction", note="a labelled sink", **same)
    return arrays, units, [sink, there]


def rows_of(arrays: Any, units: Any, before: list[Finding], measure: str) -> dict[str, Finding]:
    return {row.site: row for row in decide.findings(arrays, units, before) if row.measure == measure}


def test_a_short_value_is_found_where_it_was_planted() -> None:
    rows = rows_of(*made(shorter=1.5), "value_norm")
    assert rows["L0H1"].effect == pytest.approx(1.5, abs=0.1)
    assert rows["L0H1"].null / rows["L0H1"].value == pytest.approx(np.exp(rows["L0H1"].effect))
    assert (rows["L0H1"].q or 1) < 0.001 and rows["L0H1"].note == "a labelled sink"
    assert rows["model"].effect == pytest.approx(rows["L0H1"].effect)  # the only sink
    assert all(row.p is not None and row.p > 0.9 for site, row in rows.items() if site not in ("L0H1", "model"))
    assert all((row.p or 0) > 0.9 for row in rows_of(*made(shorter=SHORTER / 2), "value_norm").values())


def test_a_long_stream_is_found_in_its_layer() -> None:
    rows = rows_of(*made(longer=4.0), "norm_ratio")
    assert rows["L1"].behaviour == "massive_activation"
    assert rows["L1"].value / rows["L1"].null == pytest.approx(np.exp(rows["L1"].effect))
    assert rows["L1"].effect > LONGER and (rows["L1"].q or 1) < 0.001
    assert (rows["L0"].p or 0) > 0.9


def test_a_drift_with_position_is_no_contrast() -> None:
    drifting = rows_of(*made(drift=0.3), "sink_beyond_position")["L0H1"]
    assert abs(drifting.effect) < 0.05 and (drifting.p or 0) > 0.9
    giving_way = rows_of(*made(drift=0.3, contrast=0.3), "sink_beyond_position")["L0H1"]
    assert giving_way.effect == pytest.approx(0.3, abs=0.05) and (giving_way.q or 1) < 0.001
    assert giving_way.null == pytest.approx(0.3, abs=0.05) and giving_way.target == "induction"


def test_the_ledger_asks_for_a_contrast_beyond_position() -> None:
    [claim] = [claim for claim in ATTENTION if claim.id == "A11"]
    for contrast, answer in ((0.3, "yes"), (0.0, "no")):
        arrays, units, before = made(contrast=contrast)
        verdict = judge(claim, frame([*before, *decide.findings(arrays, units, before)]))
        assert next(one.answer for one in verdict.evidence if "position" in one.clause) == answer


def test_the_study_keeps_what_decides(tiny_model: Callable[[str], Any], make_reading: Callable[..., Reading]) -> None:
    from innerworks.model.study import Given

    model, reading = tiny_model("llama"), make_reading(documents=48, sequences=2)
    study = Sinks()
    [instrument] = study.instruments(model)
    states = observe(model, reading, [instrument], begin(model, reading, [instrument])).states
    kept = study.measure(Given(model=model, reading=reading, states=states, before=[], depth="quick", seed=0))
    rows = study.findings(kept, units_of(reading), [])
    assert {row.measure for row in rows} == {"value_norm", "norm_ratio"}
    assert len(rows) == 12 + 3 and all(row.n == 24 for row in rows)
    assert [row.site for row in rows if row.behaviour == "massive_activation" and (row.q or 1) <= 0.05] == []
