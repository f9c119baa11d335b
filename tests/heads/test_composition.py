"""Composition of heads: parts add up in every family, planted wiring is found, idle heads are not, weights say what they can."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, testing

from innerworks.errors import UnsupportedModel
from innerworks.findings import Finding
from innerworks.heads import composition
from innerworks.heads.composition import Bench, decide, scores, weigh
from innerworks.heads.composition.between import DISTANCES, turns
from innerworks.heads.composition.measure import Matches, key, measure
from innerworks.heads.composition.plan import Plan, plan
from innerworks.heads.composition.study import of_weights, sample
from innerworks.heads.composition.written import Writing
from innerworks.heads.means import HeadMeans
from innerworks.model import Mean, Model
from innerworks.model.norms import Norm
from innerworks.model.study import Given, Kept
from innerworks.phantoms import Phantom, build
from innerworks.sites import Site
from innerworks.stats import CONSTANTS
from innerworks.text import Reading, TextBatch, random_repeats
from innerworks.text.reading import Unit, Window, batch_of
from innerworks.text.repeats import ordinary_tokens

OPENED = ("gpt2", "llama-bias", "gpt_neox", "phi", "stablelm-parallel", "gemma2", "gemma3_text", "olmo2", "qwen3", "mixtral")
ROTARY = ("llama-bias", "mistral", "gpt_neox", "phi", "stablelm", "starcoder2")
SEQUENCES, LENGTH = 12, 64


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def repeats(vocabulary: list[int], *, count: int = SEQUENCES, length: int = LENGTH, seed: int = 0) -> TextBatch:
    """Sequences of random tokens with one repeat each."""
    drawn = random_repeats(vocabulary, count, seed=seed, longest=length)
    nothing = (None,) * length
    windows = [Window(unit=i, tokens=one.tokens, words=nothing, kinds=nothing, alike=one.gap) for i, one in enumerate(drawn)]
    return batch_of(windows, "random", "random", "confirmation")


def mean_of(model: Model, batch: TextBatch) -> Mean:
    """Mean z over positions 1 and later."""
    run = model.run(batch.tokens, record="L*.z", logits="none")
    return Mean(values={"z": run.stack("z")[:, :, 1:].mean(dim=(1, 2))}, over="repeats")


def bench_of(model: Model, *, count: int = 4, length: int = 56, centred: bool = True) -> Bench:
    """A bench of a tiny model that watches the look two back, within any window; centred=False: around nothing, not the mean."""
    batch, other = (repeats(list(range(2, 300)), count=count, length=length, seed=seed) for seed in (0, 1))
    mean = mean_of(model, other)
    if not centred:
        mean = Mean(values={"z": torch.zeros_like(mean.values["z"])}, over="nothing")
    bench = Bench.of(model, batch, mean, layers=range(model.anatomy.layers))
    two_back = torch.eye(length, dtype=torch.bool).roll(-2, dims=1).tril(diagonal=-1)
    return replace(bench, targets=two_back.expand_as(bench.targets))


def heads(model: Model, layer: int) -> list[tuple[int, int]]:
    return [(layer, head) for head in range(model.anatomy.heads)]


# --- what heads write -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", OPENED)
def test_what_heads_write_adds_up_to_what_attention_adds(tiny_model: Callable[[str], Model], family: str) -> None:
    model = tiny_model(family)
    bench = bench_of(model, centred=False)
    run = model.run(bench.writing.clean.tokens, record="L*.attn_out", logits="none")
    for layer in range(model.anatomy.layers):
        written = bench.writing.of(heads(model, layer)) + bias_of(bench.writing, layer)
        testing.assert_close(written[:, 1:], run[f"L{layer}.attn_out"][:, 1:], atol=2e-5, rtol=1e-4)
        assert bench.writing.of(heads(model, layer))[:, 0].abs().max() == 0


def bias_of(writing: Writing, layer: int) -> Tensor:
    """What attention adds that belongs to no head."""
    model, bias = writing.model, writing.model.weights.b_O(layer)
    if not model.adapter.post_norms:
        return bias
    norm = Norm.of(model.require_part("attention_added", layer))
    through = norm.linear(bias.expand(*writing.clean.tokens.shape, -1), norm.scale(writing._computed(layer)))
    return through if norm.bias is None else through + norm.bias


@pytest.mark.parametrize("family", OPENED)
def test_without_any_head_the_keys_read_embeddings_and_feed_forwards(tiny_model: Callable[[str], Model], family: str) -> None:
    model = tiny_model(family)
    bench, receiver = bench_of(model, centred=False), (model.anatomy.layers - 1, 2)
    below = [head for layer in range(receiver[0]) for head in heads(model, layer)]
    record = ["embed", "L*.mlp_out", f"L{receiver[0]}.resid_pre"]
    run = model.run(bench.writing.clean.tokens, record=record, logits="none")
    stream = run["embed"] + sum(run[f"L{layer}.mlp_out"] + bias_of(bench.writing, layer) for layer in range(receiver[0]))
    stream[:, 0] = run[f"L{receiver[0]}.resid_pre"][:, 0]
    testing.assert_close(bench.without(receiver, below), bench.instead(receiver, stream), atol=1e-5, rtol=1e-4)
    assert np.abs(bench.without(receiver, below) - bench.clean_match(receiver)).max() > 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama-bias", "gpt_neox", "qwen3", "olmo2"])
def test_a_removal_is_the_difference_by_hand(tiny_model: Callable[[str], Model], family: str) -> None:
    model = tiny_model(family)
    bench, receiver, sender = bench_of(model), (2, 3), (1, 1)
    clean = bench.writing.clean
    less = bench.writing.of([sender])

    def subtracted(stream: Tensor, queries: slice) -> Tensor:
        return stream - less

    site = Site(layer=2, kind="resid_pre")
    whole = model.run(clean.tokens, record=["L2.q", "L2.k"], watch=[(site, subtracted)], logits="none")
    plain = model.run(clean.tokens, record=["L2.q", "L2.k", "L2.pattern"], logits="none")
    causal = torch.ones(clean.tokens.shape[1], clean.tokens.shape[1]).tril().bool()

    def match(query: Tensor, keys: Tensor) -> np.ndarray:
        scores = query @ keys.mT / model.anatomy.d_head**0.5
        pattern = scores.masked_fill(~causal, -torch.inf).softmax(dim=-1)
        return ((pattern * bench.targets).sum(dim=(1, 2)) / bench.targets.any(dim=2).sum(dim=1)).numpy()

    q, k, other_q, other_k = (one[:, :, 3] for one in (plain["L2.q"], plain["L2.k"], whole["L2.q"], whole["L2.k"]))
    testing.assert_close(bench.clean_match(receiver), match(q, k).astype(float), atol=1e-6, rtol=1e-5)
    testing.assert_close(bench.without(receiver, [sender]), match(q, other_k).astype(float), atol=1e-6, rtol=1e-5)
    queries = bench.without(receiver, [sender], reads="queries")
    testing.assert_close(queries, match(other_q, k).astype(float), atol=1e-6, rtol=1e-5)
    assert np.abs(match(q, k) - match(q, other_k)).max() > 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_values_do_not_matter_and_the_model_is_left_as_it_was(tiny_model: Callable[[str], Model], family: str) -> None:
    model = tiny_model(family)
    bench = bench_of(model)
    before = model.run(bench.writing.clean.tokens[:1]).require_logits
    clean = bench.clean_match((2, 1))
    assert np.array_equal(bench.without((2, 1), [(0, 0), (1, 2)], reads="values"), clean)
    assert np.array_equal(bench.reading((2, 1), 0 * bench.writing.of([(0, 0)])), clean)
    assert torch.equal(model.run(bench.writing.clean.tokens[:1]).require_logits, before)


def test_a_rotated_control_removes_as_much(tiny_model: Callable[[str], Model]) -> None:
    writing = bench_of(tiny_model("llama")).writing
    one, turned = writing.of([(1, 2)]), writing.of([(1, 2, 7)])
    testing.assert_close(turned.norm(dim=-1), one.norm(dim=-1), atol=1e-4, rtol=1e-4)
    assert (turned - one).abs().max() > 1e-2
    assert torch.equal(turned, writing.of([(1, 2, 7)]))


# --- path patching --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama-bias", "gpt_neox", "gemma2"])
def test_a_path_from_the_same_text_changes_nothing(tiny_model: Callable[[str], Model], family: str) -> None:
    model = tiny_model(family)
    batch = repeats(list(range(2, 300)), count=1, length=56)
    window = Window(unit=0, tokens=tuple(batch.tokens[0].tolist()), words=(None,) * 56, kinds=(None,) * 56, alike=0)
    twice = batch_of([window] * 3, "random", "random", "confirmation")
    bench = Bench.of(model, twice, mean_of(model, batch), layers=range(2))
    stream = composition.patched_streams(bench, (0, 1), [2])[2]
    plain = model.run(twice.tokens, record="L2.resid_pre", logits="none")["L2.resid_pre"]
    testing.assert_close(stream, plain, atol=1e-5, rtol=1e-5)


def test_a_path_leads_through_feed_forwards_and_through_no_other_head(tiny_model: Callable[[str], Model]) -> None:
    for family, parallel in (("gpt_neox", True), ("llama", False)):
        model = tiny_model(family)
        bench, sender = bench_of(model), (1, 2)
        clean = bench.writing.clean
        z = clean[f"L{sender[0]}H{sender[1]}.z"]
        direct = (z.roll(-1, dims=0) - z) @ model.weights.W_O(1)[2]
        direct[:, 0] = 0
        plain = model.run(clean.tokens, record="L2.resid_pre", logits="none")["L2.resid_pre"]
        moved = composition.patched_streams(bench, sender, [2])[2] - plain
        alike = torch.allclose(moved, direct, atol=1e-4)
        assert alike == parallel, family  # in a parallel block the feed-forward does not see the head beside it
        assert moved[:, 0].abs().max() == 0
    bench = bench_of(tiny_model("llama"))
    streams = composition.patched_streams(bench, (0, 0), [1, 2])
    assert sorted(streams) == [1, 2]
    held = bench.model.run(
        bench.writing.clean.tokens,
        edit=[
            composition.path_patching.patch("L0H0", bench.writing.clean["L0H0.z"].roll(-1, dims=0), positions=None),
            *(composition.path_patching.patch(f"L1H{head}", bench.writing.clean[f"L1H{head}.z"]) for head in range(4)),
        ],
        record="L2.resid_pre",
        logits="none",
    )
    testing.assert_close(streams[2], held["L2.resid_pre"], atol=1e-5, rtol=1e-5)


# --- the phantom ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def phantom(request: pytest.FixtureRequest) -> Phantom:
    return build(request.param, seed=0)


@pytest.fixture(scope="module")
def planted(phantom: Phantom) -> Model:
    return Model(phantom.hf, phantom.tokenizer, name=f"{phantom.architecture} phantom", certified=False)


def head_of(site: str) -> tuple[int, int]:
    found = Site.parse(site)
    assert found.layer is not None and found.head is not None
    return found.layer, found.head


@pytest.fixture(scope="module")
def asked(phantom: Phantom, planted: Model) -> tuple[Plan, Matches]:
    """The planted induction head, both previous-token heads, controls; all removed and patched."""
    batches = [repeats(ordinary_tokens(phantom.tokenizer, planted.anatomy.vocab), seed=seed) for seed in (0, 1)]
    bench = Bench.of(planted, batches[0], mean_of(planted, batches[1]), layers=range(planted.anatomy.layers))
    pair, lone = (head_of(site) for site in phantom.truth["previous_token"])
    receiver = head_of(phantom.truth["induction"][0])
    planted_heads = {head_of(site) for site in [*sum(phantom.truth.values(), ()), *phantom.decoys.values()]}
    removed = np.ones((planted.anatomy.layers, planted.anatomy.heads))
    chosen = plan(receiver, [pair, lone], suspects=planted_heads, removed=removed)
    return chosen, measure(bench, [chosen])


def test_the_pair_is_found_and_the_lone_head_is_not(phantom: Phantom, asked: tuple[Plan, Matches]) -> None:
    chosen, matches = asked
    rows = {(row.measure, row.target): row for row in decide.findings(matches, [chosen])}
    pair, lone = phantom.truth["previous_token"]
    for measured in ("k_composition", "k_over_q", "path_patching"):
        assert rows[measured, pair].effect_low > 0.9 and rows[measured, pair].q < 1e-6, measured  # type: ignore[operator]
    assert rows["k_composition_share", pair].effect_low > 0.9
    assert rows["q_composition", pair].effect_high < 0.05 and rows["q_composition", pair].p == 1
    for measured in decide.FLOORS:
        assert abs(rows[measured, lone].effect) < 0.01 and rows[measured, lone].q > 0.5, measured  # type: ignore[operator]
    both = ", ".join(sorted([pair, lone], key=head_of))
    assert rows["k_composition", both].effect_low > 0.9 and rows["k_composition_share", both].q < 0.05  # type: ignore[operator]
    assert {row.site for row in rows.values()} == set(phantom.truth["induction"])


def test_controls_are_not_found_in_the_place_of_senders(asked: tuple[Plan, Matches]) -> None:
    chosen, matches = asked
    others = [one for one in chosen.controls if len(one) == 2]
    assert len(chosen.controls) == CONSTANTS.controls and len(chosen.groups) == CONSTANTS.controls
    for number, one in enumerate(others[:5]):
        rest = tuple(control for control in chosen.controls if control != one)
        rows = decide.findings(matches, [replace(chosen, senders=(one,), controls=rest, groups=())])
        assert all(row.q > 0.5 for row in rows), number  # type: ignore[operator]


def test_measuring_goes_on_where_it_stopped(planted: Model, phantom: Phantom, asked: tuple[Plan, Matches]) -> None:
    chosen, matches = asked
    batches = [repeats(ordinary_tokens(phantom.tokenizer, planted.anatomy.vocab), seed=seed) for seed in (0, 1)]
    bench = Bench.of(planted, batches[0], mean_of(planted, batches[1]), layers=range(planted.anatomy.layers))
    missing = [key(chosen.receiver, "keys", [chosen.senders[0]]), key(chosen.receiver, "path", [chosen.senders[1]])]
    known = {name: x for name, x in matches.items() if name not in missing}
    steps: list[int] = []
    again = measure(bench, [chosen], done=known, step=lambda found, done, total: steps.append(done))
    assert again.keys() == matches.keys()
    for name in missing:
        testing.assert_close(again[name], matches[name], atol=1e-6, rtol=1e-6)
    assert steps[0] == len(known) + 1
    assert Plan.from_json(json.loads(json.dumps(chosen.as_json()))) == chosen


# --- scores of weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "phi", "falcon-new", "bloom", "stablelm"])
def test_small_matrices_score_what_large_ones_would(tiny_model: Callable[[str], Model], family: str) -> None:
    model = tiny_model(family)
    w, layers = model.weights, model.anatomy.layers
    between = turns(model)
    for kind in scores.KINDS:
        found = scores.scores(model, kind).reshape(layers, 4, layers, 4)
        for (l1, h1), (l2, h2) in (((0, 1), (2, 3)), ((1, 0), (2, 1)), ((2, 2), (0, 0))):
            written = w.OV(l1, h1, fold=True).full()
            query, keys = w.W_Q(l2, fold=True)[h2], w.W_K(l2, fold=True, per_head=True)[h2]
            circuits = [query @ turn.mT @ keys.mT for turn in between[l2]]
            read = {"q": circuits, "k": [one.mT for one in circuits], "v": [w.OV(l2, h2, fold=True).full()]}[kind]
            above = torch.stack([(written @ one).square().sum() for one in read]).mean().sqrt()
            size = written.norm() * torch.stack([one.square().sum() for one in read]).mean().sqrt()
            testing.assert_close(found[l1, h1, l2, h2], above / size, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ROTARY)
def test_a_turned_key_scores_as_the_model_scores_it(tiny_model: Callable[[str], Model], tokens: Tensor, family: str) -> None:
    model = tiny_model(family)
    layer, w = 1, model.weights
    run = model.run(tokens, record=["L1.resid_pre", "L1.q", "L1.k"], logits="none")
    norm = w.attention_norm(layer)
    assert norm is not None
    rows = run["L1.resid_pre"] / norm.scale(run["L1.resid_pre"])[..., None]
    query = torch.einsum("bsm,hmd->bhsd", rows, w.W_Q(layer, fold=True)) + w.b_Q(layer, fold=True)[:, None]
    keys = torch.einsum("bsm,hmd->bhsd", rows, w.W_K(layer, fold=True, per_head=True))
    keys = keys + w.b_K(layer, fold=True, per_head=True)[:, None]
    for distance, turn in zip(DISTANCES, turns(model)[layer], strict=False):
        if distance >= tokens.shape[1]:
            break
        theirs = (run["L1.q"][:, distance:] * run["L1.k"][:, :-distance]).sum(dim=-1).mT
        ours = (query[:, :, distance:] * (keys @ turn)[:, :, :-distance]).sum(dim=-1)
        testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        unturned = (query[:, :, distance:] * keys[:, :, :-distance]).sum(dim=-1)
        assert (unturned - theirs).abs().max() > 1e-2  # what a position-free circuit would have said


@pytest.mark.parametrize(("family", "why"), [("qwen3", "norms its queries"), ("gemma2", "caps its scores"), ("gptj", "table of")])
def test_scores_that_are_not_bilinear_are_refused_but_values_are_not(
    tiny_model: Callable[[str], Model], family: str, why: str
) -> None:
    model, about = tiny_model(family), {"not measured": {}}
    found = of_weights(model, about)
    for name in ("scores/q", "scores/k", "qk/duplicate_token"):
        assert name not in found and why in about["not measured"][name]
    assert "scores/v" in found
    with pytest.raises(UnsupportedModel, match=why):
        turns(model)


def test_the_planted_pair_scores_highest_of_all(phantom: Phantom, planted: Model) -> None:
    found, can = scores.scores(planted, "k").numpy().astype(float), scores.can_compose(planted)
    rows = weigh.composition("k", found, can, {"heads": planted.anatomy.heads, "d_model": planted.anatomy.d_model, "between": ""})
    assert (rows[0].target, rows[0].site) == (phantom.truth["previous_token"][0], phantom.truth["induction"][0])
    assert rows[0].effect > rows[0].floor and rows[0].rung == 0
    of_lone = [row for row in rows[:10] if row.target == phantom.truth["previous_token"][1]]
    assert not of_lone
    assert len(rows) == weigh.CANDIDATES and all(row.effect < row.floor for row in rows if row.target != rows[0].target)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_random_models_have_no_composition(tiny_model: Callable[[str], Model], family: str) -> None:
    model, about = tiny_model(family), dict[str, Any](heads=4, d_model=32, between="")
    can = scores.can_compose(model)
    assert (can == 1).sum() == 4 * 4 * 3 and (can == 0).sum() == 144 - 12 - 48
    for kind in scores.KINDS:
        found = scores.scores(model, kind).numpy().astype(float)
        assert all(row.q > 0.05 for row in weigh.composition(kind, found, can, about))  # type: ignore[operator]


# --- QK circuits ----------------------------------------------------------------------------------------------------


def test_planted_circuits_are_found_by_their_weights(phantom: Phantom, planted: Model) -> None:
    found = of_weights(planted, about := {"not measured": {}})
    rows = weigh.findings(found, {**about, "heads": planted.anatomy.heads, "d_model": planted.anatomy.d_model})
    stand_out = {
        behaviour: {row.site for row in rows if row.behaviour == behaviour and row.value > 0.5} for behaviour in weigh.BEHAVIOURS
    }
    assert stand_out["duplicate_token"] == set(phantom.truth["duplicate_token"])
    if phantom.architecture == "gpt2":
        assert stand_out["previous_token"] == set(phantom.truth["previous_token"])
    else:
        assert not stand_out["previous_token"] and "pattern score" in about["not measured"]["qk/previous_token"]
    assert all(row.rung == 0 for row in rows)
    chance = composition.qk.BEST / composition.qk.SAMPLE
    assert abs(found["qk/duplicate_token/null"].mean() - chance) < 0.02


def test_a_head_that_scores_all_keys_alike_prefers_none() -> None:
    assert float(composition.qk._own_among_best(torch.zeros(1, 256, 256))) == 0
    assert float(composition.qk._own_among_best(torch.eye(256)[None])) == 1
    previous = torch.full((1, 20, 20), -1.0)
    previous[0, range(1, 20), range(19)] = 1
    assert float(composition.qk._previous_is_best(previous)) == 1
    assert float(composition.qk._previous_is_best(torch.eye(20)[None])) == 0


# --- the study ------------------------------------------------------------------------------------------------------


def given(model: Model, reading: Reading, before: list[Any] | None = None, *, depth: str = "standard") -> Given:
    empty = {one.name: one.begin(model.anatomy, reading) for one in composition.Composition().instruments(model)}
    empty[HeadMeans.name]["rows"] += 1
    return Given(model=model, reading=reading, states=empty, before=before or [], depth=depth, seed=0)


@pytest.mark.parametrize(
    ("family", "where", "why"),
    [
        ("opt-post-norm", "all", "norms its stream"),
        ("bloom", "in context", "code of its own"),
        ("gpt2", "in context", "no labelled induction head"),
    ],
)
def test_what_cannot_be_asked_is_told(tiny_model: Callable[[str], Model], family: str, where: str, why: str) -> None:
    reading = Reading(
        units=tuple(Unit(id=f"random/{i}", stratum="random", material="random", half="confirmation") for i in range(2)),
        windows=(),
    )
    model, study = tiny_model(family), composition.Composition()
    kept = study.measure(given(model, reading))
    assert why in kept.about["not measured"][where]
    json.dumps(kept.about)
    rows = study.findings(kept, [], [])
    assert bool(rows) == (family != "opt-post-norm") and all(row.rung == 0 for row in rows)


def test_no_head_that_any_kind_suspects_is_a_control(tiny_model: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that copies is the link behind an induction head as much as one before it."""
    place = {
        "chapter": "heads",
        "behaviour": "copying",
        "site": "L1H2",
        "layer": 1,
        "index": 2,
        "unit": "score",
        "n": 1,
        "mde": 0.1,
    }
    effect = {"value": 0.9, "effect": 0.9, "effect_low": 0.9, "effect_high": 0.9, "null": 0.0, "null_kind": "none", "floor": 0.1}
    rows = [("eigenvalue", "weights"), ("direct_effect", "text")]
    found: list[Any] = [
        Finding(**place, **effect, measure=measure, material=material, p=1e-4, q=0.01, rung=1) for measure, material in rows
    ]
    asked = dict[str, Any]()
    monkeypatch.setattr(composition.study, "plans", lambda before, **more: asked.update(more) or [])
    reading = Reading(units=(Unit(id="r", stratum="random", material="random", half="confirmation"),), windows=())
    composition.Composition().measure(given(tiny_model("gpt2"), reading, found))
    assert asked["suspects"] == {(1, 2)}


def test_quick_asks_nothing(tiny_model: Callable[[str], Model]) -> None:
    kept = composition.Composition().measure(given(tiny_model("llama"), Reading(units=(), windows=()), depth="quick"))
    assert not kept.arrays and "quick" in kept.about["not measured"]["all"]
    assert composition.Composition().findings(Kept(about=kept.about), [], []) == []


def test_a_sample_is_of_ordinary_tokens(tiny_model: Callable[[str], Model]) -> None:
    drawn = sample(tiny_model("llama"), 0)
    assert len(drawn) == len(set(drawn.tolist())) == 256 and int(drawn.min()) > 1
