"""The geometry of the stream: slow sums, planted dimensions and decoys, and nothing in untrained models."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from scipy import stats as scipy_stats
from torch import Tensor

import families
from innerworks import Model
from innerworks.claims.claim import judge
from innerworks.claims.residual import RESIDUAL
from innerworks.findings import Finding, frame
from innerworks.model import Mean
from innerworks.model.anatomy import Anatomy
from innerworks.model.study import Given, Kept, units_of
from innerworks.residual.geometry import Geometry, decide, decide_cloud, decide_removal, study
from innerworks.residual.geometry.choose import FLOORS, chosen
from innerworks.residual.geometry.cloud import COSINES, cloud, pairs
from innerworks.residual.geometry.encode import correlations
from innerworks.residual.geometry.removal import Stretch, other_directions, other_stretches, removed, turned
from innerworks.residual.geometry.sample import sample
from innerworks.residual.geometry.sizes import directions, robust_z
from innerworks.residual.geometry.watch import LONG, ORDINARY, SORTS, Sizes, sorts_of, strata_of
from innerworks.scan.engine import HALVES, begin, observe
from innerworks.sites import Site
from innerworks.text import Reading
from innerworks.text.reading import Unit, Window

PLANTED, WIDTH = 5, 64
LARGE = 20.0  # times the size of all other dimensions together, at most
CLAIMS = {claim.id: claim for claim in RESIDUAL}
SIZES = dict(hidden_size=WIDTH, num_attention_heads=4, intermediate_size=96)
TRIED = study.Effort(looked=32, removed=24, tokens=16, stretches=1, hows=("zero", "mean"), against=("dimensions", "directions"))


def reading_of(documents: int) -> Reading:
    """Documents of random words, so that two of them have hardly a word in common."""
    random, units, windows = np.random.default_rng(0), [], []
    for number in range(documents):
        half = HALVES[number // 2 % 2]
        units.append(Unit(id=f"d/{number}", stratum=f"stratum {number % 2}", material="text", half=half))
        tokens = tuple(int(token) for token in random.integers(2, families.VOCAB, random.integers(16, 24)))
        nothing = (None,) * len(tokens)
        windows.append(Window(unit=number, tokens=tokens, words=nothing, kinds=nothing, alike=number))
    return Reading(units=tuple(units), windows=tuple(windows))


@pytest.fixture(scope="module")
def reading() -> Reading:
    return reading_of(64)


def states_of(model: Any, reading: Reading) -> Any:
    instruments = Geometry().instruments(model)
    return observe(model, reading, instruments, begin(model, reading, instruments)).states


def measured(model: Any, reading: Reading, depth: str = "quick", **saved: Any) -> tuple[Kept, list[Finding]]:
    given = Given(model=model, reading=reading, states=states_of(model, reading), before=[], depth=depth, seed=0, **saved)
    kept = Geometry().measure(given)
    return kept, Geometry().findings(kept, units_of(reading), [])


def labels_of(rows: list[Finding], behaviour: str) -> set[str]:
    return {row.site for row in rows if row.behaviour == behaviour and row.rung >= 1}


def untrained(architecture: str, seed: int, layers: int = 3) -> Any:
    """As Hugging Face initialises it."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    ends: dict[str, Any] = dict(vocab_size=families.VOCAB, bos_token_id=1, eos_token_id=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture == "llama":
            sizes: dict[str, Any] = {**SIZES, "num_hidden_layers": layers, "max_position_embeddings": families.POSITIONS}
            return LlamaForCausalLM(LlamaConfig(**sizes, **ends)).eval()
        shape: dict[str, Any] = dict(n_positions=families.POSITIONS, n_embd=WIDTH, n_layer=layers, n_head=4)
        return GPT2LMHeadModel(GPT2Config(**shape, **ends)).eval()


def planted(seed: int) -> Any:
    """Every token has nearly the same large value in one dimension; the norms' gains make up for what that does to all others."""
    hf = untrained("llama", seed)
    with torch.no_grad():
        noise = torch.randn(families.VOCAB, generator=torch.Generator().manual_seed(seed))
        own = float(hf.model.embed_tokens.weight.norm(dim=1).mean())
        hf.model.embed_tokens.weight[:, PLANTED] = LARGE * own * (1 + 0.01 * noise)
        hf.lm_head.weight.mul_(8.0)
        for norm in (hf.model.norm, *(one for b in hf.model.layers for one in (b.input_layernorm, b.post_attention_layernorm))):
            norm.weight.fill_(LARGE)
            norm.weight[PLANTED] = 0.0
    return hf


@pytest.fixture(scope="module")
def found(tiny_tokenizer: Any, reading: Reading) -> tuple[Model, Kept, list[Finding]]:
    model = Model(planted(0), tiny_tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(study.EFFORTS, "full", TRIED)
        return model, *measured(model, reading, "full")


# --- what is watched ----------------------------------------------------------------------------------------------


def test_sums_against_one_document_at_a_time(tiny_model: Any, make_reading: Callable[..., Reading]) -> None:
    model, reading = tiny_model("gpt2"), make_reading(documents=20, sequences=2, shortest=6)
    state = states_of(model, reading)["stream_sizes"]
    along, seen = directions(model.anatomy.d_model).double().numpy(), set()
    total, units = np.zeros((2, 2, model.anatomy.d_model)), np.zeros((2, 2))
    squares, rows = np.zeros((2, 3, model.anatomy.d_model)), np.zeros((2, 3))
    for window in reading.windows:
        unit = reading.units[window.unit]
        if unit.material != "text":
            continue
        half, stratum = HALVES.index(unit.half), strata_of(reading).index(unit.stratum)
        run = model.run(torch.tensor([window.tokens]), record="L1.resid_post", logits="none")
        stream = run["L1.resid_post"][0].double().numpy(force=True)
        lengths = np.linalg.norm(stream, axis=1)
        massive = lengths > LONG * np.median(lengths[1:])
        massive[0] = False
        ordinary = ~massive
        ordinary[0] = False
        for sort, mine in enumerate((np.arange(len(stream)) == 0, massive, ordinary)):
            squares[half, sort] += (stream[mine] ** 2).sum(axis=0)
            rows[half, sort] += mine.sum()
        if window.unit in seen or ordinary.sum() < 8:
            continue
        seen.add(window.unit)
        own, other = (np.sqrt((values[ordinary] ** 2).mean(axis=0)) for values in (stream, stream @ along))
        total[half, stratum] += slow_z(own) - slow_z(other).max()
        units[half, stratum] += 1
    assert np.allclose(state["rogue_total"][:, :, 1], total, atol=1e-3) and np.array_equal(state["units"][:, :, 1], units)
    assert np.allclose(state["moments"][:, :, 1, 1], squares, rtol=1e-4) and np.array_equal(state["rows"][:, :, 1], rows)


def slow_z(sizes: np.ndarray) -> np.ndarray:
    middle = np.sort(sizes)[(len(sizes) - 1) // 2]  # torch takes the lower of two medians
    return (sizes - middle) / (1.4826 * np.sort(np.abs(sizes - middle))[(len(sizes) - 1) // 2])


def test_halves_of_a_reading_add_up(tiny_model: Any, make_reading: Callable[..., Reading]) -> None:
    from innerworks.model.observe import merge

    model, reading = tiny_model("llama"), make_reading(documents=16, sequences=0)
    instrument = Sizes()
    whole = observe(model, reading, [instrument], begin(model, reading, [instrument])).states["stream_sizes"]
    parts = []
    for half in HALVES:
        windows = tuple(window for window in reading.windows if reading.units[window.unit].half == half)
        some = Reading(units=reading.units, windows=windows)
        parts.append(observe(model, some, [instrument], begin(model, some, [instrument])).states["stream_sizes"])
    both = merge(*parts)
    assert all(torch.allclose(both[name], whole[name]) for name in whole)


class Feed:
    """Streams made by hand, given to the instrument as if a model of one layer had computed them."""

    def __init__(self, reading: Reading, make: Callable[[torch.Generator, Tensor], Tensor]) -> None:
        self.instrument = Sizes()
        sizes: dict[str, Any] = dict(layers=1, heads=1, kv_heads=1, d_head=1, d_model=WIDTH, neurons=0, vocab=1, parameters=0)
        anatomy = Anatomy(family="made", max_positions=None, **sizes)
        self.state, generator = self.instrument.begin(anatomy, reading), torch.Generator().manual_seed(0)
        for half in HALVES:
            for batch in reading.batches(half):
                stream = make(generator, torch.randn(*batch.tokens.shape, WIDTH, generator=generator))
                self.instrument.begin_batch(batch)
                self.instrument.observe(self.state, batch, Site(layer=0, kind="resid_post"), stream, slice(0, None))
                self.instrument.end_batch(self.state, batch)

    def labels(self) -> dict[str, set[int]]:
        found = decide.tested(Kept(arrays=chosen(self.state)))
        return {kind: {one.dimension for one in found if one.kind == kind and one.labelled} for kind in FLOORS}


def large(generator: torch.Generator, stream: Tensor) -> Tensor:
    stream[..., PLANTED] += 30.0
    return stream


def turned_around(generator: torch.Generator, stream: Tensor) -> Tensor:
    """The same in another basis: no dimension is special now, though one direction is."""
    q, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(7)))
    return large(generator, stream) @ q


def first_only(generator: torch.Generator, stream: Tensor) -> Tensor:
    stream[:, 0, PLANTED] = 3000.0
    return stream


def few_tokens(generator: torch.Generator, stream: Tensor) -> Tensor:
    """Huge at the first token and at one later token of each text: root mean squares over all tokens would be large."""
    stream[:, 9, PLANTED] = 3000.0
    return first_only(generator, stream)


@pytest.mark.parametrize(
    ("make", "rogue", "massive"),
    [
        (large, {PLANTED}, set()),
        (turned_around, set(), set()),
        (first_only, set(), {PLANTED}),
        (few_tokens, set(), {PLANTED}),
        (lambda generator, stream: stream, set(), set()),
    ],
)
def test_a_rogue_dimension_is_told_from_its_decoys(make: Any, rogue: set[int], massive: set[int], reading: Reading) -> None:
    feed = Feed(reading, make)
    assert feed.labels() == {"rogue": rogue, "massive": massive}
    if make is few_tokens:
        everywhere = chosen(feed.state)["z_everywhere"][0]
        assert everywhere.argmax() == PLANTED and everywhere[PLANTED] > 100  # as one would see without telling them apart
        assert feed.state["rows"][0, SORTS.index("massive"), 0] > 0


def test_no_turned_stream_reaches_the_floor() -> None:
    """The worst stream lies in one direction: sizes along others are half-normal."""
    generator = torch.Generator().manual_seed(0)
    worst = robust_z(torch.randn(200, 4096, generator=generator).abs()).amax(dim=1)
    null = torch.stack([robust_z(torch.randn(128, generator=generator).abs()).max() for _ in range(200)])
    assert float(worst.mean() - null.mean()) < FLOORS["rogue"]


def test_equal_sizes_have_no_z() -> None:
    assert robust_z(torch.tensor([1.0, 1.0, 1.0, 9.0])).isnan().all()


# --- a whole study ------------------------------------------------------------------------------------------------


def test_the_planted_dimension_is_found_in_every_layer_and_alone(found: tuple[Model, Kept, list[Finding]]) -> None:
    _, kept, rows = found
    assert labels_of(rows, "rogue_dimension") == {f"L{layer}D{PLANTED}" for layer in range(3)}
    assert labels_of(rows, "massive_dimension") == set()
    assert judge(CLAIMS["R3"], frame(rows)).verdict == "holds"
    assert decide.stretches(decide.rogue(kept)) == [Stretch(dimensions=(PLANTED,), first=0, last=2)]


def test_it_makes_all_tokens_alike(found: tuple[Model, Kept, list[Finding]]) -> None:
    rows = found[2]
    (owed,) = [row for row in rows if row.measure == "owed" and row.site == "model"]
    assert owed.effect > 0.8 and owed.null < 0.1
    assert judge(CLAIMS["R4"], frame(rows)).verdict == "holds"


def test_without_it_much_is_lost_but_not_with_its_mean_there(found: tuple[Model, Kept, list[Finding]]) -> None:
    rows = {(row.measure, row.ablation): row for row in found[2] if row.measure.endswith("_harm")}
    zero, mean = rows["dimension_harm", "zero"], rows["dimension_harm", "mean"]
    assert (
        (zero.q or 1) < 1e-3
        and zero.effect > 0.1
        and zero.null_kind == "other dimensions"
        and zero.note == "alone; behind L0 to L2"
    )
    assert mean.p == 1.0 and mean.value < zero.value / 5 and "no controls run" in mean.note
    verdict = judge(CLAIMS["R5"], frame(found[2]))
    assert [one.answer for one in verdict.evidence][0] == "yes" and verdict.evidence[2].answer == "open"


def test_findings_follow_from_what_is_kept_and_what_was_measured_is_not_measured_again(
    found: tuple[Model, Kept, list[Finding]], reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, kept, rows = found
    in_an_atlas = Kept(arrays=load(save(dict(kept.arrays))), about=json.loads(json.dumps(kept.about)))
    assert Geometry().findings(in_an_atlas, units_of(reading), []) == rows
    monkeypatch.setitem(study.EFFORTS, "full", TRIED)
    saves: list[Kept] = []
    again, same = measured(model, reading, "full", saved=in_an_atlas, save=saves.append)
    assert not saves and same == rows and again.arrays.keys() == kept.arrays.keys()


def test_twenty_untrained_models_have_hardly_a_label(tiny_tokenizer: Any) -> None:
    labelled, largest, reading = 0, [], reading_of(48)
    for seed in range(20):
        model = Model(untrained(("gpt2", "llama")[seed % 2], seed, layers=2), tiny_tokenizer)
        rows = measured(model, reading)[1]
        labelled += any(row.rung for row in rows) or any(row.measure == "mean_cosine" and (row.q or 1) <= 0.05 for row in rows)
        largest.append(max(row.effect for row in rows if row.measure == "ceiling" and row.behaviour == "rogue_dimension"))
        assert judge(CLAIMS["R3"], frame(rows)).verdict == "not measured"
    assert labelled <= 3 and max(largest) < FLOORS["rogue"] / 2


@pytest.mark.parametrize("family", families.ALL)
def test_every_family_can_be_asked(tiny_model: Any, family: str) -> None:
    rows = measured(tiny_model(family), reading_of(24))[1]
    assert {"ceiling", "mean_cosine", "effective_rank"} <= {row.measure for row in rows}
    numbers = [(row.value, row.effect, row.effect_low, row.effect_high, row.null) for row in rows]
    assert np.isfinite(numbers).all()


def test_with_too_few_documents_it_says_so(tiny_model: Any, make_reading: Callable[..., Reading]) -> None:
    kept, rows = measured(tiny_model("llama"), make_reading(documents=16, sequences=2))
    assert "too few" in kept.about["not looked at"] and "cosine" not in kept.arrays
    assert not any(row.rung for row in rows)


# --- the cloud ----------------------------------------------------------------------------------------------------


def test_the_cloud_against_one_pair_of_tokens_at_a_time() -> None:
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    shift = torch.zeros(6, dtype=torch.float64)
    shift[2] = 4.0
    documents = [torch.randn(5, 6, generator=generator, dtype=torch.float64) + shift for _ in range(4)]
    mean = torch.full((6,), 0.1, dtype=torch.float64)
    one = cloud(documents, mean, [2], rng)
    assert pairs(4) == [(0, 2), (1, 3)] and pairs(5) == [(0, 2), (1, 3)]
    a, b = (documents[i].numpy() for i in (0, 2))
    left = np.delete(np.arange(6), 2)

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u in x for v in y]))

    wanted = {"all": cosine(a, b), "without": cosine(a[:, left], b[:, left]), "centred": cosine(a - 0.1, b - 0.1)}
    for name, value in wanted.items():
        assert one.cosine[COSINES.index(name), 0] == pytest.approx(value)
    assert one.cosine[COSINES.index("without_others"), 0] > one.cosine[COSINES.index("without"), 0] + 0.3
    assert one.dots[0, 0] == pytest.approx(np.mean([((u - 0.1) @ (v - 0.1)) ** 2 for u in a for v in b]))
    others = np.concatenate([documents[i].numpy() for i in (1, 2, 3)])
    near = [np.sort(np.linalg.norm(others - u, axis=1))[:2] for u in a]
    assert one.log_ratio[0] == pytest.approx(np.mean([np.log(second / first) for first, second in near]))


def test_ranks_are_those_that_are_known() -> None:
    """A Gaussian cloud that fills 5 of 40 dimensions evenly, and one whose spectrum falls."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for spectrum in (torch.ones(5), 2.0 ** -torch.arange(8)):
        spectrum = spectrum.double()
        basis, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))
        documents = [
            torch.randn(40, len(spectrum), generator=generator, dtype=torch.float64) * spectrum.sqrt() @ basis[: len(spectrum)]
            for _ in range(32)
        ]
        one = cloud(documents, torch.zeros(40, dtype=torch.float64), [], rng)
        known = float(spectrum.sum() ** 2 / spectrum.square().sum())
        rank = decide_cloud._participation(one.squares[0], one.dots[0])
        assert float(rank.low) <= known <= float(rank.high)
        if len(spectrum) == 5:
            assert one.entropy_rank == pytest.approx(5.0, abs=0.1)
            assert float(decide_cloud._inverse(one.log_ratio).mean) == pytest.approx(5.0, abs=0.8)


def test_the_interval_of_a_ratio_covers() -> None:
    random, covered = np.random.default_rng(0), 0
    for _ in range(400):
        whole = 0.5 + 0.1 * random.standard_normal(16)
        part = 0.6 * whole + 0.05 * random.standard_normal(16)
        one = decide_cloud.ratio(part, whole)
        covered += bool(one.low <= 0.6 <= one.high)
    assert 0.92 <= covered / 400 <= 0.98


def test_correlations_are_spearmans() -> None:
    random = np.random.default_rng(0)
    sizes, features = random.standard_normal((30, 4)), random.integers(0, 6, (2, 30)).astype(float)
    sizes[:, 3] = 2.0
    found = correlations(sizes, features)
    for feature, dimension in np.ndindex(2, 3):
        assert found[feature, dimension] == pytest.approx(scipy_stats.spearmanr(sizes[:, dimension], features[feature]).statistic)
    assert not found[:, 3].any()


def test_the_sample_is_even_over_domains(reading: Reading) -> None:
    batches = sample(reading, documents=9, tokens=10)
    sizes = [sum(len(batch.tokens) for batch in batches if batch.stratum == f"stratum {i}") for i in (0, 1)]
    assert sorted(sizes) == [4, 5] and all(batch.half == "confirmation" and batch.tokens.shape[1] <= 10 for batch in batches)


def test_sorts_of_tokens() -> None:
    stream, mask = torch.ones(1, 6, 2), torch.tensor([[True] * 5 + [False]])
    stream[0, 3] = 100.0
    first, massive, ordinary = sorts_of(stream, mask)[:, 0].tolist()
    assert first == [True] + [False] * 5 and massive == [False, False, False, True, False, False]
    assert ordinary == [False, True, True, False, True, False] and ORDINARY == 2


# --- taking out ---------------------------------------------------------------------------------------------------


@pytest.fixture
def clean(tiny_model: Any, tokens: Tensor) -> Any:
    return tiny_model("llama").run(tokens, keep="resume")


def streams(model: Any, way: Any, clean: Any) -> Tensor:
    """What the blocks return with a way of running: of the last layer that it changes, seen by the next block."""
    seen: list[Tensor] = []
    block = model.hf.model.layers[2]
    handle = block.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args[0].clone()), with_kwargs=True)
    try:
        way(clean)
    finally:
        handle.remove()
    return seen[0]


def test_dimensions_are_taken_out_behind_every_layer_but_not_at_the_first_token(tiny_model: Any, clean: Any) -> None:
    model = tiny_model("llama")
    mean = Mean(values={"resid_post": torch.arange(96.0).reshape(3, 32)}, over="nothing")
    stretch = Stretch(dimensions=(7, 2), first=0, last=1)
    for how, values in (("zero", [0.0, 0.0]), ("mean", [32.0 + 7, 32.0 + 2])):
        stream = streams(model, removed(model, stretch, how, mean), clean)
        assert torch.allclose(stream[:, 1:, [7, 2]], torch.tensor(values).expand(2, 11, 2))
        assert torch.allclose(stream[:, 0], clean.streams[1][:, 0], atol=1e-5)


def test_what_is_taken_elsewhere_is_as_long_and_leaves_the_dimensions_alone(tiny_model: Any, clean: Any) -> None:
    model, mean = tiny_model("llama"), Mean(values={"resid_post": torch.zeros(3, 32)}, over="nothing")
    stretch = Stretch(dimensions=(7, 2), first=1, last=1)
    (along, *others) = other_directions(stretch, 32, seed=0)
    assert len(others) == 19 and torch.allclose(along @ along.T, torch.eye(2), atol=1e-5) and not along[:, [7, 2]].any()
    stream = streams(model, turned(model, stretch, "zero", mean, along), clean)
    before = clean.streams[1]
    change = stream - before
    assert torch.allclose(change[:, 1:].norm(dim=-1), before[:, 1:][..., [7, 2]].norm(dim=-1), atol=1e-4)
    assert not change[:, 0].any() and torch.allclose(change[..., [7, 2]], torch.zeros(2, 12, 2), atol=1e-6)


def test_over_several_layers_the_same_is_not_taken_twice(tiny_model: Any, clean: Any) -> None:
    """With a stream that only the first layer's dimensions fill, two layers take what one takes."""
    model, mean = tiny_model("llama"), Mean(values={"resid_post": torch.zeros(3, 32)}, over="nothing")
    (along, *_) = other_directions(Stretch(dimensions=(7,), first=0, last=1), 32, seed=0)
    one, both = (Stretch(dimensions=(7,), first=first, last=1) for first in (1, 0))
    changes = [streams(model, turned(model, some, "zero", mean, along), clean) - clean.streams[1] for some in (one, both)]
    taken = [change[:, 1:] @ along[0] for change in changes]
    assert float((taken[1] - taken[0]).abs().mean()) < 0.5 * float(taken[0].abs().mean())


def test_other_dimensions_are_none_that_stick_out() -> None:
    draws = other_stretches(Stretch(dimensions=(3, 4), first=1, last=2), [3, 4, 5], 12, seed=0)
    assert len(draws) == 20 and all((one.first, one.last) == (1, 2) for one in draws)
    assert all(len(set(one.dimensions)) == 2 and not {3, 4, 5} & set(one.dimensions) for one in draws)
    assert len(set(draws)) > 10


def test_stretches_are_runs_with_the_same_foremost_dimension() -> None:
    labels = {(0, 7): 9.0, (1, 7): 9.0, (1, 3): 6.0, (2, 3): 8.0, (4, 7): 9.0}
    assert decide.stretches(labels) == [
        Stretch(dimensions=(7, 3), first=0, last=1),
        Stretch(dimensions=(3,), first=2, last=2),
        Stretch(dimensions=(7,), first=4, last=4),
    ]


def test_a_label_is_necessary_only_if_its_mean_ablation_beats_both_controls(found: tuple[Model, Kept, list[Finding]]) -> None:
    _, kept, rows = found
    random = np.random.default_rng(0)
    harms = {"harm": 0.5, "dimensions": 0.1, "directions": 0.1}

    def decided(**changes: float) -> set[int]:
        noise = {name: 0.01 * random.standard_normal((20, 24)) for name in harms}
        arrays = {f"L0-2/mean/{name}": {**harms, **changes}[name] + noise[name] for name in harms}
        arrays["L0-2/mean/harm"] = arrays["L0-2/mean/harm"][0]
        about = {"removed": [one for one in kept.about["removed"] if one["how"] == "mean"]}
        mine = Kept(arrays={**kept.arrays, **arrays}, about=about)
        return {row.rung for row in decide_removal.raised(mine, rows) if row.measure == "robust_z"}

    assert decided() == {2} and decided(directions=0.6) == {1} and decided(dimensions=0.6) == {1}
