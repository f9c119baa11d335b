"""Circuits of weights: small matrices say what large ones would, the planted is found, and random models have no labels."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import families
from innerworks.claims.attention import ATTENTION
from innerworks.claims.claim import judge
from innerworks.errors import UnsupportedModel
from innerworks.findings import Finding, frame
from innerworks.heads.circuits import (
    DirectEffect,
    copying,
    direct,
    findings,
    measure,
    nulls,
    ordinals,
    successor,
)
from innerworks.heads.circuits.decide import FLOORS, pooled, weigh
from innerworks.heads.circuits.embedding import as_read, effective, refusal, unembedding
from innerworks.heads.circuits.nulls import Circuits
from innerworks.model import Model
from innerworks.model.readout import attribute
from innerworks.model.study import units_of
from innerworks.phantoms import build
from innerworks.phantoms.calibrate import DOCUMENTS
from innerworks.scan.engine import begin, observe, observe_batch
from innerworks.text import Corpus, Document, Reading, TextBatch, read

HALVES = ("discovery", "confirmation")
LAID_OUT = ("gpt2", "llama", "llama-bias", "gemma2", "gpt_neox", "olmo2", "mixtral", "bloom", "gpt_neo", "opt", "falcon-new")
DECOMPOSED = tuple(family for family in LAID_OUT if family != "opt")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the effective embedding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "llama-bias", "gemma2", "gpt_neox", "phi", "olmo2", "mixtral", "stablelm-parallel"])
def test_the_first_feed_forward_is_what_its_modules_say(tiny_model: Callable[[str], Model], family: str) -> None:
    model, ids = tiny_model(family), torch.arange(5, 40)
    found = effective(model, ids)
    shared = model.part("attention_norm", 0) if model.anatomy.parallel else None
    norm, feed = model.part("mlp_norm", 0) or shared, model.require_part("mlp", 0)
    with torch.no_grad():
        stream = model.hf.get_submodule(model.adapter.embedding)(ids)[:, None]
        said = feed(stream if norm is None else norm(stream))
        said = said[0] if isinstance(said, tuple) else said
        said = model.require_part("mlp_added", 0)(said) if model.adapter.post_norms else said
    assert torch.allclose(found.mlp0, said[:, 0], atol=1e-5)
    assert torch.allclose(found.whole, stream[:, 0] + said[:, 0], atol=1e-5)


@pytest.mark.parametrize("family", LAID_OUT)
def test_looking_at_it_leaves_the_model_as_it_was(tiny_model: Callable[[str], Model], tokens: Tensor, family: str) -> None:
    model = tiny_model(family)
    before = model.run(tokens).require_logits
    found = effective(model, torch.arange(model.anatomy.vocab))
    assert found.whole.shape == (model.anatomy.vocab, model.anatomy.d_model)
    assert bool(found.whole.isfinite().all())
    assert torch.equal(model.run(tokens).require_logits, before)


def test_without_attention_block_zero_is_what_a_model_without_positions_computes(tiny_hf: Callable[..., Any]) -> None:
    hf = tiny_hf("llama", num_hidden_layers=1)
    with torch.no_grad():
        hf.model.layers[0].self_attn.o_proj.weight.zero_()
    model = Model(hf, None, certified=False)  # no gradient arrives through attention, as intended
    ids = torch.arange(10, 20)
    run = model.run(ids[:, None], record="L0.resid_post")
    assert torch.allclose(effective(model, ids).whole, run["L0.resid_post"][:, 0], atol=1e-5)


def test_a_model_whose_stream_is_no_sum_is_refused(tiny_model: Callable[[str], Model]) -> None:
    model = tiny_model("opt-post-norm")
    assert refusal(model) is not None
    for attempt in (measure, DirectEffect):
        with pytest.raises(UnsupportedModel, match="norms its stream"):
            attempt(model)


# --- copying ------------------------------------------------------------------------------------------------------


def dense(model: Model, layer: int, head: int) -> Tensor:
    """The whole matrix of a head's circuit, token by token, with the means taken off."""
    ids = torch.arange(model.anatomy.vocab)
    tokens = effective(model, ids)
    read = as_read(model, tokens.raw if layer == 0 else tokens.whole)
    return ((read - read.mean(dim=0)) @ model.weights.OV(layer, head, fold=True).full() @ unembedding(model, ids)).double()


@pytest.mark.parametrize("family", LAID_OUT)
def test_small_matrices_give_the_eigenvalues_of_large_ones(tiny_model: Callable[[str], Model], family: str) -> None:
    model = tiny_model(family)
    circuits = Circuits.of(model)
    found = copying.eigenvalue(circuits, copying.bridge(model), nulls.own(circuits)).reshape(2, circuits.layers, -1)
    for layer, head in ((0, 1), (1, 0), (2, 3)):
        values = torch.linalg.eigvals(dense(model, layer, head))
        score = float(values.real.sum() / values.abs().sum())
        count = float(values.abs().sum() ** 2 / values.abs().square().sum())
        assert found[:, layer, head] == pytest.approx([score, count], abs=5e-3, rel=2e-3)


@pytest.mark.parametrize("family", LAID_OUT)
def test_ranks_are_those_of_the_whole_vocabulary(
    tiny_model: Callable[[str], Model], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "SCREEN", 40)
    monkeypatch.setattr(copying, "TOKENS_AT_ONCE", 100)
    model = tiny_model(family)
    circuits, over = Circuits.of(model), copying.bridge(model)
    rows = copying.ranked(model, circuits, over, list(range(2, 60)))
    found = copying.top_k(model, circuits, rows, nulls.own(circuits)).reshape(2, circuits.layers, -1)
    for layer, head in ((0, 0), (1, 2), (2, 1)):
        logits = dense(model, layer, head)[rows.tokens]
        own = logits[torch.arange(len(rows.tokens)), rows.tokens][:, None]
        above, below = (logits > own).sum(dim=1), (logits < own).sum(dim=1)
        expected = [float((count < copying.TOP).double().mean()) for count in (above, below)]
        assert found[:, layer, head] == pytest.approx(expected, abs=0.02)


def test_scores_do_not_depend_on_how_a_head_names_its_dimensions(tiny_hf: Callable[..., Any]) -> None:
    """The inner basis of a head is free: turning it changes nothing in the model, and nothing here."""
    turned = tiny_hf("llama-bias", num_key_value_heads=4, attention_bias=False)
    plain = tiny_hf("llama-bias", num_key_value_heads=4, attention_bias=False)
    q, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))
    with torch.no_grad():
        attention = turned.model.layers[1].self_attn
        attention.v_proj.weight[:8] = q.T @ attention.v_proj.weight[:8]
        attention.o_proj.weight[:, :8] = attention.o_proj.weight[:, :8] @ q
    scores = []
    for hf in (plain, turned):
        model = Model(hf, None)
        circuits = Circuits.of(model)
        scores.append(copying.eigenvalue(circuits, copying.bridge(model), nulls.own(circuits)))
    assert np.allclose(*scores, atol=1e-3)


# --- nulls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon"])
def test_mismatched_parts_are_of_different_layers(tiny_model: Callable[[str], Model], family: str) -> None:
    circuits = Circuits.of(tiny_model(family))
    drawn = nulls.mismatched(circuits, 3000)
    assert bool((circuits.layer(drawn.reader) != circuits.layer(drawn.writer)).all())
    assert len(drawn.writer.unique()) == circuits.heads
    turn = drawn.turns[0]
    assert torch.allclose(turn @ turn.T, torch.eye(len(turn)), atol=1e-5)
    assert torch.equal(nulls.mismatched(circuits, 3000).writer, drawn.writer)


def test_heads_that_share_values_read_through_them(tiny_model: Callable[[str], Model]) -> None:
    model = tiny_model("llama")
    circuits, pairs = Circuits.of(model), nulls.own(Circuits.of(model))
    for head in range(circuits.heads):
        layer, index = int(circuits.layer(pairs.reader[head])), head % 4
        product = circuits.value[circuits.kv(pairs.reader[head])] @ circuits.output[head]
        assert torch.allclose(product, model.weights.OV(layer, index, fold=True).full(), atol=1e-6)


def test_p_counts_what_scores_as_high() -> None:
    assert nulls.p_of(np.array([0.5, 2.0, -1.0]), np.array([0.0, 0.5, 1.0])) == pytest.approx([3 / 4, 1 / 4, 1.0])
    assert nulls.draws_for(8) == 480
    assert nulls.draws_for(270) == 6000
    assert nulls.draws_for(5000) == 20_000


def test_a_lone_head_can_pass_where_nothing_else_does() -> None:
    null = np.random.default_rng(0).normal(size=nulls.draws_for(36))
    value = np.zeros((9, 4))
    value[3, 2] = 9.0
    found = weigh("eigenvalue", value, null)
    assert found.p.size * nulls.FAMILIES * found.p[3, 2] <= 0.05
    assert float(found.mde.min()) > FLOORS["eigenvalue"]


def test_a_score_of_one_number_says_nothing() -> None:
    """A circuit with a single eigenvalue scores 1 or -1, whatever it does."""
    rng = np.random.default_rng(0)
    null, counts = rng.normal(size=2160) / 8, np.full(2160, 64.0)
    null[:200], counts[:200] = rng.choice([-1.0, 1.0], 200), 1.0
    value, count = np.array([[1.0, 0.9]]), np.array([[1.0, 30.0]])
    found = weigh("eigenvalue", value, null, count=count, null_count=counts)
    assert found.p[0, 0] > 0.05
    assert found.p[0, 1] < 1e-3


# --- in context ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [family for family in DECOMPOSED if family not in families.OWN_CODE])
def test_direct_effects_are_shares_of_logits(
    tiny_model: Callable[[str], Model], make_reading: Callable[..., Reading], family: str
) -> None:
    """Against direct logit attribution by source, which is another program: own token less a partner's, summed over keys."""
    model, reading = tiny_model(family), make_reading(documents=16, sequences=0, shortest=4, longest=7)
    batch = reading.batches("discovery")[0]
    state = _watched(model, reading, batch)
    expected = torch.zeros(len(batch.tokens), model.anatomy.layers, model.anatomy.heads, dtype=torch.float64)
    rows = torch.zeros(len(batch.tokens))
    for step in direct.PARTNERS:
        others, both = batch.tokens.roll(-step, dims=0), batch.mask & batch.mask.roll(-step, dims=0)
        both &= (batch.alike != batch.alike.roll(-step))[:, None]
        for query in range(2, batch.tokens.shape[1]):
            some = both[:, query].nonzero()[:, 0]
            rows[some] += 1
            for key in range(1, query + 1) if len(some) else ():
                ends = batch.tokens[some, key], others[some, key]
                found = attribute(model, batch.tokens[some], *ends, mask=batch.mask[some], position=query, by="source")
                expected[some] += found.stack("head")[..., key].transpose(0, 1)
    difference = state["direct"][:, direct.OWN] - state["direct"][:, direct.SWAPPED]
    assert float(rows.max()) >= 6
    assert torch.allclose(difference, torch.zeros_like(difference).index_add_(0, batch.units, expected), atol=1e-3)
    assert torch.equal(state["rows"], torch.zeros_like(state["rows"]).index_add_(0, batch.units, rows.double()))


@pytest.mark.parametrize("family", ["gptj", "bloom", "falcon-new"])
def test_values_that_are_not_shown_are_worked_out(tiny_model: Callable[[str], Model], tokens: Tensor, family: str) -> None:
    model = tiny_model(family)
    run = model.run(tokens, record=["L*.resid_pre", "L*.pattern", "L*.z"])
    for layer in range(model.anatomy.layers):
        values = direct.values_of(model, layer, run[f"L{layer}.resid_pre"])
        assert torch.allclose(torch.einsum("bhqk,bkhe->bqhe", run[f"L{layer}.pattern"], values), run[f"L{layer}.z"], atol=1e-4)


def _watched(model: Model, reading: Reading, batch: TextBatch) -> dict[str, Tensor]:
    current = begin(model, reading, [DirectEffect(model)])
    observe_batch(model, batch, [DirectEffect(model)], current)
    return current.states[DirectEffect.name]


# --- ordinals -----------------------------------------------------------------------------------------------------


def ordinal_tokenizer(*, fewer: bool = False) -> Any:
    """Every member of every class is one word, and so one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<end>", *dict.fromkeys(word for members, _ in ordinals.CLASSES.values() for word in members[:12])]
    words = [word for word in words if not (fewer and word in ("Tuesday", "Thursday", "Saturday"))]
    words += [f"w{i}" for i in range(260 - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")


def test_classes_are_what_a_tokenizer_knows() -> None:
    kept, dropped = ordinals.classes(ordinal_tokenizer())
    days = kept[0]
    assert (days.name, days.counted, days.successor[-1]) == ("days", 7, 0)  # Sunday is followed by Monday
    numbers = next(one for one in kept if one.name == "numbers")
    assert (len(numbers.tokens), numbers.counted, numbers.successor[-1]) == (12, 11, -1)
    assert dropped == ()
    _, dropped = ordinals.classes(ordinal_tokenizer(fewer=True))
    assert dropped == ("days",)


def test_lists_ask_for_the_next_member() -> None:
    tokenizer = ordinal_tokenizer()
    kept, _ = ordinals.classes(tokenizer)
    given = ordinals.rows(tokenizer, kept)
    assert {row.half for row in given} == {"discovery", "confirmation"}
    for row in given:
        one = kept[row.kind]
        assert [tokenizer.encode(one.members[i])[0] for i in row.shown] == list(row.tokens)
        assert row.answer == one.successor[row.shown[-1]]
        assert row.answer not in row.shown


@pytest.mark.parametrize("name", ["months", "number words", "small letters"])
def test_the_halves_share_no_item_of_a_large_class(name: str) -> None:
    tokenizer = ordinal_tokenizer()
    kept, _ = ordinals.classes(tokenizer)
    given = ordinals.rows(tokenizer, kept)
    kind = next(i for i, one in enumerate(kept) if one.name == name)
    items = {
        half: {i for row in given if (row.kind, row.half) == (kind, half) for i in (*row.shown, row.answer)} for half in HALVES
    }
    assert not items["discovery"] & items["confirmation"]
    if name == "months":  # twelve known members: both halves have lists
        assert all(len(found) >= 4 for found in items.values())
    shared = ordinals.shared_items(kept, given)
    assert name not in shared and "days" in shared  # seven days are too few


def test_the_fall_of_mismatched_parts_has_uniform_p(planted_arrays: dict[str, np.ndarray]) -> None:
    """Half of the draws in the place of heads, the other half as their null; no p is too small."""
    fall = pooled(planted_arrays, "whole_null") - pooled(planted_arrays, "raw_null")
    own, null = fall[: len(fall) // 2].reshape(1, -1), fall[len(fall) // 2 :]
    p = weigh("through_first_mlp", own, null).p.ravel()
    assert len(p) > 100
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() <= level + 2.5 * np.sqrt(level * (1 - level) / len(p))


# --- planted ------------------------------------------------------------------------------------------------------

WIDTH = 128  # of a token's code, of what the first feed-forward makes of it, and of what the unembedding reads
PLANTED = {"successor": (1, 0), "copying": (1, 2), "anti_copying": (1, 3)}


def planted(*, strength: float = 1.0) -> Model:
    """A two-layer Llama by hand: block 0 copies token codes to a second subspace; three heads of layer 1 act on it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer, generator = ordinal_tokenizer(), torch.Generator().manual_seed(0)
    vocab, wide = len(tokenizer), 3 * WIDTH + 4
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=wide, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, head_dim=WIDTH, max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip
    hf: Any = LlamaForCausalLM(config).eval()
    codes = torch.nn.functional.normalize(torch.randn(vocab, WIDTH, generator=generator), dim=1)
    token, made, output = (slice(i * WIDTH, (i + 1) * WIDTH) for i in range(3))
    eye = torch.eye(WIDTH)
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            weight.fill_(1.0) if "norm" in name else weight.copy_(0.005 * torch.randn(weight.shape, generator=generator))
        hf.model.embed_tokens.weight.zero_()[:, token] = 4.0 * codes
        hf.model.embed_tokens.weight[:, -1] = 4.0
        hf.lm_head.weight.zero_()[:, output] = codes
        feed = hf.model.layers[0].mlp
        for weight in (feed.gate_proj.weight, feed.up_proj.weight, feed.down_proj.weight):
            weight.zero_()
        feed.gate_proj.weight[:, token] = torch.cat([eye, -eye])  # silu(z) - silu(-z) = z
        feed.up_proj.weight[:, -1] = 0.1
        feed.down_proj.weight[made] = 0.1 * torch.cat([eye, -eye], dim=1)
        attention = hf.model.layers[1].self_attn
        turns = {"successor": _to_successor(tokenizer, codes), "copying": eye, "anti_copying": -eye}
        for behaviour, (_, head) in PLANTED.items():
            part, source = slice(head * WIDTH, (head + 1) * WIDTH), made if behaviour == "successor" else token
            attention.v_proj.weight[part] = 0.0
            attention.v_proj.weight[part, source] = eye
            attention.o_proj.weight[:, part] = 0.0
            attention.o_proj.weight[output, part] = strength * turns[behaviour]
    return Model(hf, tokenizer, name="planted")


def _to_successor(tokenizer: Any, codes: Tensor) -> Tensor:
    """The matrix that takes each ordinal's code to its successor's."""
    after = {}
    for one in ordinals.classes(tokenizer)[0]:
        after |= {token: one.tokens[next_] for token, next_ in zip(one.tokens, one.successor, strict=True) if next_ >= 0}
    return torch.linalg.lstsq(codes[list(after)], codes[list(after.values())]).solution.T


@pytest.fixture(scope="module")
def planted_reading(make_reading: Callable[..., Reading]) -> Reading:
    return make_reading(documents=48, sequences=16)


@pytest.fixture(scope="module")
def planted_arrays(planted_reading: Reading) -> dict[str, np.ndarray]:
    return read_by(planted(), planted_reading)


@pytest.fixture(scope="module")
def planted_found(planted_arrays: dict[str, np.ndarray], planted_reading: Reading) -> list[Finding]:
    return findings(planted_arrays, units_of(planted_reading))


def read_by(model: Model, reading: Reading) -> dict[str, np.ndarray]:
    """What the weights and a reading of its own say of a model."""
    watching = [DirectEffect(model)]
    current = observe(model, reading, watching, begin(model, reading, watching))
    return measure(model, seen=current.states[DirectEffect.name])


def labels(found: list[Finding], measure: str) -> dict[str, set[str]]:
    given: dict[str, set[str]] = {behaviour: set() for behaviour in PLANTED}
    for one in found:
        if one.rung >= 1 and one.measure == measure:
            given[one.behaviour].add(one.site)
    return given


def test_what_was_planted_is_found_and_nothing_else(planted_found: list[Finding]) -> None:
    sites = {behaviour: {f"L{layer}H{head}"} for behaviour, (layer, head) in PLANTED.items()}
    assert labels(planted_found, "direct_effect") == sites
    assert labels(planted_found, "eigenvalue") == {**sites, "successor": set()}
    assert labels(planted_found, "top_k") == {**sites, "successor": set()}
    assert labels(planted_found, "succession")["successor"] == sites["successor"]


def test_the_successor_head_reads_the_first_feed_forward(planted_found: list[Finding]) -> None:
    by_measure = {one.measure: one for one in planted_found if (one.behaviour, one.site) == ("successor", "L1H0")}
    assert by_measure["succession"].value > 0.9
    assert by_measure["through_first_mlp"].effect > 0.8
    assert by_measure["through_first_mlp"].rung == 1
    assert (by_measure["through_first_mlp"].q or 1) < 0.05
    [claim] = [claim for claim in ATTENTION if claim.id == "A9"]
    assert judge(claim, frame(planted_found)).verdict == "holds"
    assert by_measure["succession_in_context"].effect_low > 0.5
    assert by_measure["direct_effect"].material == "lists"


def test_without_text_nothing_is_labelled(planted_arrays: dict[str, np.ndarray]) -> None:
    found = findings({name: one for name, one in planted_arrays.items() if name not in ("copying/direct", "copying/rows")})
    labelled = {one.behaviour for one in found if one.rung}
    assert labelled <= {"successor"}  # lists are a context of their own
    best = max((one for one in found if one.measure == "eigenvalue" and one.behaviour == "copying"), key=lambda one: one.effect)
    assert (best.site, best.rung) == ("L1H2", 0)
    assert "no label" in best.note


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "olmo2", "mixtral", "gptj"])
def test_random_models_have_no_labels(
    tiny_model: Callable[[str], Model], make_reading: Callable[..., Reading], family: str
) -> None:
    reading = make_reading(documents=48, sequences=24)
    found = findings(read_by(tiny_model(family), reading), units_of(reading))
    assert found
    assert [one.site for one in found if one.rung] == []


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_phantoms_induction_head_copies(architecture: Any) -> None:
    phantom = build(architecture, seed=0)
    model = Model(phantom.hf, phantom.tokenizer, name="phantom")
    texts = [Document(id=f"{i:03d}", text=text) for i, text in enumerate(phantom.documents(DOCUMENTS // 2, seed=0))]
    reading = read(
        Corpus.of("phantom", texts), model.tokenizer, vocab=model.anatomy.vocab, max_positions=512, sequences=24, seed=0
    )
    found = findings(read_by(model, reading), units_of(reading))
    copies = {one.site for one in found if one.behaviour == "copying" and one.rung and one.measure == "direct_effect"}
    assert copies == set(phantom.truth["induction"])
    assert not [one for one in found if one.behaviour != "copying" and one.rung]


def test_findings_are_a_function_of_arrays(
    tmp_path: Any, planted_arrays: dict[str, np.ndarray], planted_found: list[Finding], planted_reading: Reading
) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({name: np.ascontiguousarray(one) for name, one in planted_arrays.items()}, tmp_path / "circuits.safetensors")
    assert findings(load_file(tmp_path / "circuits.safetensors"), units_of(planted_reading)) == planted_found


def test_a_head_that_lowers_what_it_read_is_no_successor_head(planted_found: list[Finding]) -> None:
    """Members that a list shows are no foils."""
    on_lists = {one.site: one.effect for one in planted_found if (one.behaviour, one.measure) == ("successor", "direct_effect")}
    assert abs(on_lists["L1H3"]) < 0.2 * on_lists["L1H0"]


def test_in_context_shares_are_those_of_the_values_read() -> None:
    model = planted()
    kept, _ = ordinals.classes(model.tokenizer)
    found = successor.on_lists(model, kept, ordinals.rows(model.tokenizer, kept))
    assert found.share[:, 1, 0].mean() > 0.9
    assert found.share[:, 1, 2].mean() < 0.1  # a copying head names the item itself
    assert np.allclose(found.chance[:2], 1 / 7)
