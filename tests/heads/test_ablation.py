"""Ablations against Hugging Face's own model with hooks of our own, and the metrics against their definition."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import numpy as np
import pytest
import torch

from innerworks.heads import ablation, prompts
from innerworks.heads.ablation import Ablations, restored, set_name, trial
from innerworks.heads.harms import Head, material_of
from innerworks.heads.means import HeadMeans, reference, reference_of
from innerworks.model import Model, ablate, patch
from innerworks.model.prompts import batch_of
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading
from innerworks.text.reading import Window
from innerworks.text.tasks import agreement

FAMILIES = ("gpt2", "llama")
OF_TEXT = ("repeated_loss", "fresh_loss", "unmatched_loss", "joined_loss", "single_loss", "text_loss")
MEASURED = ("second_copy_loss", "induction_match@0", "induction_match@1", *OF_TEXT)
WATCHERS = ((1, 2), (2, 0))
UNITS = {"text": 6, "random": 4}
LENGTH = 30


@pytest.fixture(scope="module")
def reading(make_reading: Any) -> Reading:
    return make_reading(documents=48)


@pytest.fixture
def bench(tiny_model: Any, reading: Reading) -> Callable[[str], Ablations]:
    """Ablations of a tiny model on a small reading."""

    def of(family: str) -> Ablations:
        model = tiny_model(family)
        state = observe(model, reading, [HeadMeans()], begin(model, reading, [HeadMeans()])).states["head_means"]
        references = {material: reference(model, state, material) for material in UNITS}
        chosen = trial(model, reading, units=UNITS, text_tokens=LENGTH, watchers=WATCHERS)
        return Ablations(model, chosen, references, {})

    return of


def first_windows(reading: Reading) -> dict[int, Window]:
    """What may be read of each unit."""
    return {window.unit: window for window in reversed(reading.windows)}


def slow(hf: Any, ablations: Ablations, heads: list[Head], material: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Loss of each next token `[seq - 1]` and patterns `[watcher, query, key]`, one unpadded unit at a time."""
    mean = ablations.references[material].mean.values["z"]
    gpt2 = hasattr(hf, "transformer")
    handles = []
    for layer, head in heads:
        module = hf.transformer.h[layer].attn.c_proj if gpt2 else hf.model.layers[layer].self_attn.o_proj

        def replace(module: Any, args: Any, layer: int = layer, head: int = head) -> Any:
            z = args[0].clone()
            width = mean.shape[-1]
            z[:, 1:, head * width : (head + 1) * width] = mean[layer, head]
            return (z,)

        handles.append(module.register_forward_pre_hook(replace))
    losses, patterns = [], []
    batch = ablations.trial.batches[material]
    for tokens, mask in zip(batch.tokens, batch.mask, strict=True):
        with torch.no_grad():
            out = hf(tokens[mask][None], output_attentions=True)
        logits, targets = out.logits[0, :-1].double(), tokens[mask][1:]
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy())
        patterns.append(torch.stack([out.attentions[layer][0, head] for layer, head in WATCHERS]).double().numpy())
    for handle in handles:
        handle.remove()
    return losses, patterns


def slow_rows(window: Window, length: int, metric: str) -> list[int]:
    """The positions whose prediction counts, by the words of the documentation."""
    rows, tokens, words = [], window.tokens[:length], window.words
    for i in range(1, len(tokens) - 1):
        before, now, after = tokens[:i], tokens[i], tokens[i + 1]
        last_piece = window.kinds[i] == "letter" and words[i + 1] != words[i]
        counts = {
            "second_copy_loss": any(tokens[j] == now and tokens[j + 1] == after for j in range(i)),
            "repeated_loss": after in tokens[: i + 1],
            "fresh_loss": after not in tokens[: i + 1],
            "unmatched_loss": now not in before,
            "joined_loss": last_piece and words[i] in words[:i],
            "single_loss": last_piece and words[i] not in words[:i],
            "text_loss": True,
        }
        if counts[metric]:
            rows.append(i)
    return rows


def slow_metric(hf: Any, ablations: Ablations, windows: dict[int, Window], heads: list[Head], metric: str) -> np.ndarray:
    material = material_of(metric)
    losses, patterns = slow(hf, ablations, heads, material)
    batch, out = ablations.trial.batches[material], []
    metric, _, above = metric.partition("@")
    watched = [number for number, (layer, _) in enumerate(WATCHERS) if layer > int(above or 0)]
    for unit, (row, mask) in enumerate(zip(batch.tokens, batch.mask, strict=True)):
        tokens = row[mask].tolist()
        if metric != "induction_match":
            rows = slow_rows(windows[int(batch.units[unit])], len(tokens), metric)
            out.append(losses[unit][rows].mean() if rows else np.nan)
            continue
        masses = []
        for i in range(2, len(tokens)):
            keys = [j for j in range(1, i) if tokens[j - 1] == tokens[i]]
            if keys:
                masses.append(patterns[unit][watched][:, i, keys].sum(axis=-1).mean())
        out.append(np.mean(masses))
    return np.array(out)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("heads", [(), ((0, 3),), ((1, 2), (2, 1)), ((2, 0),)], ids=str)
def test_every_metric_is_that_of_hugging_faces_model_with_the_mean_in_the_heads_place(
    family: str, heads: tuple[Head, ...], bench: Any, reading: Reading, tiny_hf: Any
) -> None:
    hf = tiny_hf(family)
    hf.set_attn_implementation("eager")
    ablations = bench(family)
    for metric in MEASURED:
        found = ablations.without(heads, metric)
        expected = slow_metric(hf, ablations, first_windows(reading), list(heads), metric)
        assert not np.isnan(expected).any()
        np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=metric)


def test_an_ablation_changes_something_and_the_clean_run_nothing(bench: Any) -> None:
    ablations = bench("gpt2")
    for metric in MEASURED:
        change = ablations.without([(0, 1)], metric) - ablations.without([], metric)
        assert np.nanmax(abs(change)) > 1e-4, metric


def test_every_set_is_run_once_per_material_whatever_the_order_of_its_heads(bench: Any) -> None:
    ablations = bench("gpt2")
    for _ in range(2):
        for metric in MEASURED:
            ablations.without([(0, 1), (2, 3)], metric)
            ablations.without(((2, 3), (0, 1)), metric)
            ablations.without((), metric)
    assert ablations.runs == 3 and set(ablations.done) == {"clean", "L0H1+L2H3"}  # the clean run of text is that of the trial


def test_a_head_cannot_change_the_match_of_heads_in_earlier_layers(bench: Any, make_reading: Any) -> None:
    ablations = bench("gpt2")
    ablations.trial = trial(ablations.model, make_reading(), units=UNITS, text_tokens=LENGTH, watchers=[(0, 1), (1, 0)])
    by_head = {heads: ablations.without(heads, "second_copy_loss") is not None for heads in ((), ((2, 2),), ((0, 0),))}
    clean, late, early = (ablations.done[set_name(frozenset(heads))]["match_by_head"] for heads in by_head)
    np.testing.assert_array_equal(late, clean)
    np.testing.assert_array_equal(early[0], clean[0])
    assert not np.array_equal(early[1], clean[1])


def test_names_of_sets_tell_them_apart() -> None:
    assert set_name(frozenset()) == "clean"
    assert set_name(frozenset([(18, 6), (2, 10)])) == "L2H10+L18H6"
    names = {set_name(frozenset(s)) for s in [[(1, 2)], [(1, 2, 0)], [(1, 2, 1)], [(12, 0)], [(1, 2), (1, 2, 0)]]}
    assert len(names) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rotation_removes_as_much_as_the_head_itself_elsewhere(family: str, bench: Any) -> None:
    ablations = bench(family)
    head, rotations = ablations.without([(1, 1)], "unmatched_loss"), []
    clean = ablations.without([], "unmatched_loss")
    for draw in range(3):
        rotations.append(ablations.without([(1, 1, draw)], "unmatched_loss"))
        assert np.nanmax(abs(rotations[-1] - clean)) > 1e-4 and np.nanmax(abs(rotations[-1] - head)) > 1e-4
    assert not np.array_equal(rotations[0], rotations[1])


def test_a_rotation_beside_its_own_head_still_removes_something(bench: Any) -> None:
    ablations = bench("gpt2")
    both = ablations.without([(1, 1), (1, 1, 0)], "unmatched_loss")
    assert np.nanmax(abs(both - ablations.without([(1, 1)], "unmatched_loss"))) > 1e-4


def test_units_come_from_confirmation_and_from_every_stratum_in_turn(tiny_model: Any, make_reading: Any) -> None:
    reading = make_reading(documents=40)
    chosen = trial(tiny_model("gpt2"), reading, units={"text": 6, "random": 3}, text_tokens=16, watchers=[])
    for material, count in (("text", 6), ("random", 3)):
        units = [reading.units[int(unit)] for unit in chosen.batches[material].units]
        assert len(units) == count and {unit.half for unit in units} == {"confirmation"}
        assert {unit.material for unit in units} == {material} and len({unit.id for unit in units}) == count
    strata = list(chosen.strata["text"])
    assert strata.count("stratum 0") == strata.count("stratum 1") == 3
    assert chosen.batches["text"].tokens.shape[1] == 16


def test_repeats_are_read_to_the_end_of_their_second_copy_and_the_shortest_are_taken(tiny_model: Any, make_reading: Any) -> None:
    reading = make_reading(documents=40)
    few, every = (
        trial(tiny_model("gpt2"), reading, units={"random": count}, text_tokens=16, watchers=[]).batches["random"]
        for count in (3, 10**6)
    )
    for batch in (few, every):
        for tokens, mask in zip(batch.tokens, batch.mask, strict=True):
            real = tokens[mask].tolist()
            assert real[-1] in real[:-1]
    lengths = sorted(every.mask.sum(dim=1).tolist())
    assert sorted(few.mask.sum(dim=1).tolist()) == lengths[:3] and lengths[0] < lengths[-1]


def test_only_units_with_rows_for_every_metric_are_chosen(tiny_model: Any, make_reading: Any) -> None:
    reading = make_reading(documents=160, shortest=3, longest=12)  # in the shortest nothing comes twice, or all does
    chosen = trial(tiny_model("gpt2"), reading, units={"text": 160, "random": 8}, text_tokens=8, watchers=[])
    text = {unit for unit, one in enumerate(reading.units) if one.half == "confirmation" and one.material == "text"}
    expected = {unit for unit in text if all(slow_rows(first_windows(reading)[unit], 8, metric) for metric in OF_TEXT)}
    assert set(chosen.batches["text"].units.tolist()) == expected and 12 <= len(expected) < len(text)


@pytest.mark.parametrize("shortest", [3, 30], ids=["some lack a metric", "none does"])
def test_the_same_units_are_chosen_however_few_are_looked_at_at_once(
    shortest: int, make_reading: Any, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, seen = make_reading(documents=120, shortest=shortest), []
    rows = ablation._rows
    monkeypatch.setattr(ablation, "_rows", lambda batch: (seen.append(len(batch.tokens)), rows(batch))[1])

    def chosen(at_once: int) -> list[int]:
        monkeypatch.setattr(ablation, "UNITS_AT_ONCE", at_once)
        units = {"text": 9, "random": 3}
        found = trial(tiny_model("gpt2"), reading, units=units, text_tokens=20, watchers=[]).batches
        return [unit for material in units for unit in found[material].units.tolist()]

    whole = chosen(1000)
    assert max(seen) == 60  # all of the confirmation half
    seen.clear()
    assert chosen(7) == chosen(1) == whole and max(seen) == 9  # no masks of more units than are chosen


@pytest.mark.parametrize("having", [0, 5, 12])
def test_a_metric_that_few_units_have_costs_the_others_nothing(having: int, tiny_model: Any, make_reading: Any) -> None:
    reading = make_reading(documents=60, sequences=4, shortest=30)
    text = [unit for unit, one in enumerate(reading.units) if one.half == "confirmation" and one.material == "text"]
    words = {unit: (0, 1, 1, *range(2, 99)) if unit in text[:having] else tuple(range(99)) for unit in text}
    windows = [
        replace(w, words=words[w.unit][: len(w.tokens)], kinds=("letter",) * len(w.tokens)) if w.unit in words else w
        for w in reading.windows
    ]
    pieces = replace(reading, windows=tuple(windows))
    chosen = trial(tiny_model("gpt2"), pieces, units={"text": 30, "random": 2}, text_tokens=20, watchers=[])
    found = set(chosen.batches["text"].units.tolist())
    assert found == set(text[:having] if having >= 12 else text)
    joined = chosen.rows["joined_loss"].any(dim=1)
    assert int(joined.sum()) == having


def test_the_ends_of_words_of_several_pieces_and_of_one_by_hand(tiny_model: Any, make_reading: Any) -> None:
    """`ab|c d, efg|h|i 12 j` in a text without a BOS, then one token more."""
    reading = make_reading(documents=60, shortest=30)
    words = (0, 0, 1, 2, 3, 3, 3, 4, 4, 5, 6)
    kinds = (*["letter"] * 3, "other", *["letter"] * 3, "digit", "digit", "letter", "letter")
    windows = [
        replace(w, tokens=w.tokens[:11], words=words, kinds=kinds) if reading.units[w.unit].material == "text" else w
        for w in reading.windows
    ]
    one = replace(reading, windows=tuple(windows))
    rows = trial(tiny_model("gpt2"), one, units={"text": 3, "random": 2}, text_tokens=80, watchers=[]).rows
    assert [row.nonzero().flatten().tolist() for row in rows["joined_loss"]] == [[1, 6]] * 3
    assert [row.nonzero().flatten().tolist() for row in rows["single_loss"]] == [[2, 9]] * 3  # nothing follows the last word


def test_naive_copying_is_the_probability_of_wrong_tokens_in_context_among_the_ten_most_likely(bench: Any, tiny_hf: Any) -> None:
    hf, heads = tiny_hf("gpt2"), [(0, 1), (1, 2)]
    hf.set_attn_implementation("eager")
    ablations = bench("gpt2")
    mean, batch, expected = ablations.references["text"].mean.values["z"], ablations.trial.batches["text"], []
    handles = [
        hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(putting(mean[layer, head], head)) for layer, head in heads
    ]
    for row, mask in zip(batch.tokens, batch.mask, strict=True):
        tokens = row[mask].tolist()
        with torch.no_grad():
            predicted = hf(torch.tensor([tokens])).logits[0].double().softmax(dim=-1)
        masses = []
        for i in range(1, len(tokens) - 1):
            likely = predicted[i].argsort(descending=True)[:10].tolist()
            masses.append(sum(float(predicted[i, t]) for t in likely if t in tokens[: i + 1] and t != tokens[i + 1]))
        expected.append(np.mean(masses))
    for handle in handles:
        handle.remove()
    found = ablations.without(heads, "naive_copying")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.min() > 0 and abs(found - ablations.without([], "naive_copying")).max() > 1e-4


def putting(value: torch.Tensor, head: int) -> Callable[[Any, Any], Any]:
    def replace(module: Any, args: Any) -> Any:
        z = args[0].clone()
        z[:, 1:, head * len(value) : (head + 1) * len(value)] = value
        return (z,)

    return replace


# --- prompts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(agreeing_tokenizer: Any, tiny_hf: Any, reading: Reading) -> Ablations:
    """Ablations of a tiny model on the agreement task."""
    model = Model(tiny_hf("llama"), agreeing_tokenizer(), name="tiny")
    chosen = trial(model, reading, units={"agreement": 24}, text_tokens=8, watchers=[])
    seen = [one for one in prompts.prompts(model, "agreement") if one.half == "discovery"]
    batch, _, _ = batch_of(seen, "agreement")
    return Ablations(model, chosen, {"agreement": reference_of(model, batch.tokens, batch.mask, over="prompts")}, {})


def test_agreement_is_the_logits_of_the_right_verb_forms_less_those_of_the_wrong_ones(asked: Ablations) -> None:
    model, tokenizer = asked.model, asked.model.tokenizer
    pairs = [pair for pair in agreement(tokenizer) if pair.half == "confirmation"]
    by_unit: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        edit = ablate("L1H2", mean=asked.references["agreement"].mean)
        logits = model.run(pair.clean, edit=edit, logits="last").require_logits[0].double()
        right, wrong = logits[list(pair.answers)], logits[list(pair.foils)]
        loss = -logits.log_softmax(dim=0)[list(pair.answers)].logsumexp(dim=0)
        by_unit.setdefault(pair.unit, []).append((float(right.mean() - wrong.mean()), float(loss)))
    names = sorted(by_unit, key=lambda unit: unit)
    found = [asked.without([(1, 2)], metric) for metric in ("agreement_difference", "agreement_loss")]
    assert len(found[0]) == 14 and set(asked.trial.strata["agreement"]) == {"phrase", "clause"}
    expected = {round(float(np.mean([d for d, _ in by_unit[name]])), 4) for name in names}
    assert all(min(abs(value - one) for one in expected) < 2e-4 for value in found[0])
    losses = [np.mean([loss for _, loss in by_unit[name]]) for name in names]
    assert all(min(abs(value - one) for one in losses) < 2e-4 for value in found[1])
    assert abs(found[0] - asked.without([], "agreement_difference")).max() > 1e-4


def test_prompts_that_a_tokenizer_cuts_are_absent_with_the_reason(tiny_model: Any, reading: Reading, tiny_hf: Any) -> None:
    units = {"random": 2, "agreement": 24, "lists": 24}
    chosen = trial(tiny_model("gpt2"), reading, units=units, text_tokens=8, watchers=[])
    assert set(chosen.batches) == set(chosen.strata) == {"random"} and set(chosen.absent) == {"agreement", "lists"}
    assert "keeps 0 units of the material agreement as single tokens" in chosen.absent["agreement"]
    bare = Model(tiny_hf("gpt2"), None, name="bare")
    assert "without a tokenizer" in trial(bare, reading, units=units, text_tokens=8, watchers=[]).absent["lists"]


def test_lists_ask_for_the_next_member(tiny_hf: Any, reading: Reading, tokenizer_of: Any) -> None:
    orders = [[str(i) for i in range(40)], *(list(letters) for letters in (ascii_lowercase, ascii_uppercase))]
    before = {after: one for order in orders for one, after in pairwise(order)}
    words = [f"{word}{comma}" for order in orders for word in order for comma in ("", ",")]
    tokenizer = tokenizer_of(words=[*words, "After", "and", "comes"])
    model = Model(tiny_hf("llama", vocab_size=len(tokenizer)), tokenizer, name="tiny")
    seen = prompts.prompts(model, "lists")
    for one in seen:
        last = before[tokenizer.decode(one.answers)]
        assert tokenizer.decode(one.tokens).split()[-1] in ("comes", f"{last},", last)
    chosen = trial(model, reading, units={"lists": 12}, text_tokens=8, watchers=[])
    batch, asked = chosen.batches["lists"], chosen.asked["lists"]
    last = batch.mask.sum(dim=1) - 1
    logits = model.run(batch.tokens, mask=batch.mask, logits="last").require_logits.double()
    expected = torch.nn.functional.cross_entropy(logits, asked.answers[:, 0], reduction="none").numpy()
    by_unit = [expected[batch.units.numpy() == unit].mean() for unit in range(12)]  # over all ways of writing a run down
    assert chosen.rows["next_item_loss"].nonzero()[:, 1].tolist() == last.tolist()
    found = Ablations(model, chosen, {"lists": reference_of(model, batch.tokens, batch.mask, over="lists")}, {})
    np.testing.assert_allclose(found.without([], "next_item_loss"), by_unit, atol=1e-5)


# --- heads put back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_only_ablated_head_put_back_is_the_clean_run(family: str, bench: Any) -> None:
    ablations = bench(family)
    for metric in ("repeated_loss", "second_copy_loss", "induction_match@1"):
        back = ablations.without([restored((1, 1))], metric)
        np.testing.assert_allclose(back, ablations.without([], metric), atol=1e-6)
        assert abs(back - ablations.without([(1, 1)], metric)).max() > 1e-4


def test_a_head_put_back_writes_what_it_wrote_in_the_clean_run_though_others_are_gone(bench: Any) -> None:
    ablations = bench("gpt2")
    model, clean = ablations.model, ablations.trial.clean["text"]
    mean, metric = ablations.references["text"].mean, "text_loss"
    wrote = model.run(clean.tokens, mask=clean.mask, record="L2.z")["L2.z"][:, :, 3]
    edits = [ablate("L0H1", mean=mean), patch("L2H3", wrote)]
    logits = model.run(clean.tokens, mask=clean.mask, edit=edits).require_logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), clean.tokens[:, 1:], reduction="none")
    rows = ablations.trial.rows[metric][:, :-1]
    expected = ((loss * rows).sum(dim=1) / rows.sum(dim=1)).numpy()
    found = ablations.without([(0, 1), restored((2, 3))], metric)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(found - ablations.without([(0, 1)], metric)).max() > 1e-4
    assert set_name(frozenset([(0, 1), restored((2, 3))])) == "L0H1+L2H3=clean"
