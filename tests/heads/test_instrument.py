"""The instrument against STATISTICS.md's S_d and N_d, computed slowly: one document and one pair of tokens at a time."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from innerworks.heads import masks
from innerworks.heads.kinds import COLUMNS, CONTENT, MEASURES, OFFSETS
from innerworks.heads.means import HeadMeans, reference
from innerworks.heads.patterns import Patterns, heads_by_unit
from innerworks.model import attention
from innerworks.model.observe import merge
from innerworks.scan.engine import Pass, begin, observe
from innerworks.text import Reading, TextBatch
from innerworks.text.reading import Window, batch_of

HALVES = ("discovery", "confirmation")
FAMILIES = ("gpt2", "llama")


# --- the definition, slowly --------------------------------------------------------------------------------------


def is_target(kind: str, text: Window, query: int, key: int) -> bool:
    """Would a head of this kind look from the query at the key? Rows from the third, keys from the second."""
    if query < 2 or key < 1 or key >= query:
        return False
    piece = text.words[query] == text.words[key] and text.kinds[query] == text.kinds[key] == "letter"
    return {
        "duplicate": text.tokens[key] == text.tokens[query],
        "induction": text.tokens[key - 1] == text.tokens[query],
        "join": piece,
        "join_far": piece and query - key >= 2,
        "punctuation": text.kinds[key] == "other",
    }[kind]


def targets(kind: str, text: Window, query: int) -> list[int]:
    return [key for key in range(query) if is_target(kind, text, query, key)]


def of_batch(reading: Reading, batch: TextBatch) -> list[Window]:
    """The windows in a batch, as the reading has them."""
    windows = {(window.unit, window.tokens): window for window in reading.windows}
    rows = zip(batch.units.tolist(), batch.tokens, batch.mask, strict=True)
    return [windows[unit, tuple(tokens[mask].tolist())] for unit, tokens, mask in rows]


def slow_sums(
    reading: Reading, batches: list[TextBatch], patterns: Callable[[Window], np.ndarray]
) -> dict[tuple[int, str], list]:
    """(unit, measure) -> [mass `[layer, head]` summed over rows, rows], from patterns `[layer, head, query, key]`."""
    sums: dict[tuple[int, str], list] = defaultdict(lambda: [0.0, 0])

    def add(unit: int, measure: str, mass: Any, rows: int) -> None:
        sums[unit, measure][0] = sums[unit, measure][0] + mass
        sums[unit, measure][1] += rows

    for batch in batches:
        texts = of_batch(reading, batch)
        seen = [patterns(text) for text in texts]
        for at, text in enumerate(texts):
            unit, length = text.unit, len(text.tokens)
            for query in range(16, length):
                for offset in range(9):
                    add(unit, f"offset_{offset}", seen[at][:, :, query, query - offset], 1)
                    add(unit, f"column_{offset}", seen[at][:, :, query, offset], 1)
            for step in (1, 2):
                other = (at + step) % len(texts)
                if text.alike == texts[other].alike:
                    continue
                for kind in ("duplicate", "induction", "join", "join_far", "punctuation"):
                    for query in range(min(length, len(texts[other].tokens))):
                        keys = targets(kind, text, query)
                        if keys:
                            add(unit, kind, seen[at][:, :, query, keys].sum(axis=-1), 1)
                            add(unit, f"{kind}_swapped", seen[other][:, :, query, keys].sum(axis=-1), 1)
            going_on = [query for query in range(length) if targets("join", text, query)]
            for query in range(2, length) if going_on else ():  # the joiner's own offsets where no word goes on
                if query not in going_on:
                    for key in range(1, query):
                        there = [is_target("join", text, row, row - (query - key)) for row in going_on]
                        add(unit, "join_across", np.mean(there) * seen[at][:, :, query, key], 0)
                    add(unit, "join_across", 0.0, 1)
            for kind in ("duplicate", "induction", "join"):  # where does it rest?
                late = [bool(targets(kind, text, query)) for query in range(16, length)]
                for query, applies in enumerate(late, start=16):
                    if len(set(late)) == 2:
                        add(unit, f"sink_{'at' if applies else 'off'}_{kind}", seen[at][:, :, query, 0], 1)
    return sums


@pytest.fixture(scope="module")
def slow_pattern(tiny_hf: Callable[..., Any]) -> Callable[[str], Callable[[Window], np.ndarray]]:
    """Hugging Face's own eager probabilities of one unpadded text."""

    def of(family: str) -> Callable[[Window], np.ndarray]:
        hf = tiny_hf(family)
        hf.set_attn_implementation("eager")

        def pattern(text: Window) -> np.ndarray:
            with torch.no_grad():
                layers = hf(torch.tensor([text.tokens]), output_attentions=True).attentions
            return torch.stack([layer[0] for layer in layers]).double().numpy()

        return pattern

    return of


# --- masks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONTENT)
def test_masks_are_their_definition_at_every_pair_of_tokens(kind: str, spell: Any) -> None:
    random, some = np.random.default_rng(0), 0
    for _ in range(5):
        texts = [window(spell, random, length) for length in (*random.integers(1, 31, 3), 30)]
        found = masks.TARGETS[kind](batch_of(texts, "text", "", "discovery"))
        for b, text in enumerate(texts):
            expected = torch.zeros(30, 30, dtype=torch.bool)
            for query in range(len(text.tokens)):
                expected[query, targets(kind, text, query)] = True
            assert torch.equal(found[b], expected)
            some += int(expected.sum())
    assert some > 100


def window(spell: Any, random: np.random.Generator, length: int) -> Window:
    """Seven tokens, in words and marks of no meaning."""
    tokens = tuple(random.integers(2, 9, length).tolist())
    words, kinds = spell(random, length)
    return Window(unit=0, tokens=tokens, words=words, kinds=kinds, alike=0)


def test_a_head_that_looks_back_as_far_everywhere_scores_the_same_across_words_as_within(spell: Any) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        words, kinds = spell(random, 200)
        text = Window(unit=0, tokens=(5,) * 200, words=words, kinds=kinds, alike=0)
        batch = batch_of([text], "text", "", "discovery")
        by_distance = torch.from_numpy(random.dirichlet(np.ones(200))).float()  # also from one end of long words to the other
        distance = (torch.arange(200)[:, None] - torch.arange(200)[None]).clamp(min=0)
        pattern = by_distance[distance].tril()
        within, across = masks.TARGETS["join"](batch)[0].float(), masks.across_words(batch)[0]
        late = torch.arange(200) >= 12  # the first rows have not as much before them
        joining, plain = within.any(dim=1) & late, masks.plain_rows(batch)[0] & late
        assert not (joining & plain).any() and torch.equal(joining | plain, late)
        expected = torch.stack([within.diagonal(-o).sum() / within.any(dim=1).sum() * by_distance[o] for o in range(1, 12)]).sum()
        torch.testing.assert_close((pattern * across)[plain].sum() / plain.sum(), expected)
        assert not across[within.any(dim=1)].any()
        assert float(across[plain, :][:, 1:].count_nonzero(dim=1).max()) == 10  # words of eleven pieces: ten tokens back


def test_texts_without_a_word_of_several_pieces_have_no_rows_across_words() -> None:
    text = Window(unit=0, tokens=(5,) * 20, words=tuple(range(20)), kinds=("letter",) * 20, alike=0)
    batch = batch_of([text], "text", "", "discovery")
    assert not masks.plain_rows(batch).any() and not masks.across_words(batch).any()


def test_digits_and_blanks_are_no_pieces_and_padding_is_no_mark() -> None:
    words = (0, 0, 0, None, None, 1, 2, 2, 2)
    kinds = ("letter",) * 3 + (None, None, "other") + ("digit",) * 3
    batch = batch_of([Window(unit=0, tokens=(5,) * 9, words=words, kinds=kinds, alike=0)], "text", "", "discovery")
    assert batch.words.tolist() == [[0, 0, 0, -1, -1, -1, -1, -1, -1]]
    assert batch.marks.tolist() == [[False] * 5 + [True] + [False] * 3]
    assert masks.join(batch.words).nonzero().tolist() == [[0, 2, 1]]
    assert masks.punctuation(batch.marks).nonzero().tolist() == [[0, 6, 5], [0, 7, 5], [0, 8, 5]]


def test_padding_is_no_copy_of_itself() -> None:
    tokens = torch.tensor([[5, 6, 0, 0, 0, 0]])
    mask = torch.tensor([[True, True, False, False, False, False]])
    assert not masks.same_token(tokens, mask).any() and not masks.induction(tokens, mask).any()


def test_an_induction_target_never_is_the_current_token_itself() -> None:
    tokens = torch.full((1, 8), 7)  # the token after an earlier copy may be the query: it is left out
    found = masks.induction(tokens, torch.ones(1, 8, dtype=torch.bool))
    assert not found.diagonal(dim1=1, dim2=2).any() and bool(found[0, 5, 4])


# --- the contraction ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_measure_is_the_slow_sum_over_documents_pairs_and_tokens(
    family: str, tiny_model: Any, slow_pattern: Any, make_reading: Any
) -> None:
    model, reading = tiny_model(family), make_reading()
    current = observe(model, reading, [Patterns()], begin(model, reading, [Patterns()]))
    table = heads_by_unit(current.states["heads"], reading)
    batches = [batch for half in HALVES for batch in reading.batches(half)]
    assert len({len(text.tokens) for text in reading.windows}) > 5 and len(batches) >= 5
    slow = slow_sums(reading, batches, slow_pattern(family))
    for unit in range(len(reading.units)):
        for m, measure in enumerate(MEASURES):
            mass, rows = slow[unit, measure]
            assert table.rows[unit, m] == rows, (unit, measure)
            np.testing.assert_allclose(table.total[unit, m], mass, atol=2e-5, err_msg=f"{unit} {measure}")
    assert (table.rows.max(axis=0) > 0).all()


def test_the_measures_are_offsets_columns_content_with_its_swap_and_where_it_rests() -> None:
    assert list(OFFSETS) == list(COLUMNS) == list(range(9))
    assert MEASURES[:9] == tuple(f"offset_{o}" for o in range(9)) and MEASURES[9:18] == tuple(f"column_{c}" for c in range(9))
    swapped = ("duplicate", "induction", "join", "join_far", "punctuation")
    assert MEASURES[18:28] == tuple(name for kind in swapped for name in (kind, f"{kind}_swapped"))
    rests = (
        "sink_off_duplicate",
        "sink_at_duplicate",
        "sink_off_induction",
        "sink_at_induction",
        "sink_off_join",
        "sink_at_join",
    )
    assert MEASURES[28:] == ("join_across", *rests)


def test_a_document_alone_in_its_batch_has_no_swap_and_no_content_row(tiny_model: Any, make_reading: Any) -> None:
    model, reading = tiny_model("gpt2"), make_reading(documents=4, sequences=0, shortest=30)
    current = observe(model, reading, [Patterns()], begin(model, reading, [Patterns()]))
    rows = current.states["heads"]["rows"]
    assert (rows[:, 18:28] == 0).all() and (rows[:, :18] > 0).all()
    assert (rows[:, 28:].sum(dim=0) > 0).all()  # what is held against the document's own rows


def test_two_sequences_of_the_same_gap_are_not_compared(tiny_model: Any, make_reading: Any) -> None:
    reading = make_reading(documents=0, sequences=2)
    same = replace(reading, units=tuple(replace(unit, half="discovery") for unit in reading.units))
    windows = tuple(replace(window, alike=8) for window in same.windows)
    for one, rows_expected in ((same, False), (replace(same, windows=(windows[0], replace(windows[1], alike=9))), True)):
        one = one if rows_expected else replace(one, windows=windows)
        model = tiny_model("gpt2")
        current = observe(model, one, [Patterns()], begin(model, one, [Patterns()]))
        assert bool((current.states["heads"]["rows"][:, 18:28] > 0).any()) == rows_expected


def test_queries_in_blocks_give_the_same_sums(tiny_model: Any, make_reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reading = tiny_model("llama"), make_reading()
    whole = observe(model, reading, [Patterns()], begin(model, reading, [Patterns()]))
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 4 * 4 * 39 * 5)  # some batches at five rows at once or so
    blocks: list[slice] = []
    instrument, seen = Patterns(), Patterns.observe

    def spy(self: Patterns, state: Any, batch: Any, site: Any, activation: Any, queries: slice) -> None:
        blocks.append(queries)
        seen(self, state, batch, site, activation, queries)

    monkeypatch.setattr(Patterns, "observe", spy)
    parts = observe(model, reading, [instrument], begin(model, reading, [instrument]))
    assert sum(block.start > 0 for block in blocks) > 10
    torch.testing.assert_close(whole.states["heads"]["rows"], parts.states["heads"]["rows"], rtol=0, atol=0)
    torch.testing.assert_close(whole.states["heads"]["mass"], parts.states["heads"]["mass"], rtol=0, atol=2e-5)


def test_two_shards_merged_are_one_pass(tiny_model: Any, make_reading: Any) -> None:
    model, reading = tiny_model("gpt2"), make_reading()
    instruments = [Patterns(), HeadMeans()]
    whole = observe(model, reading, instruments, begin(model, reading, instruments))
    middle = whole.batches // 2

    class Stop(Exception):
        pass

    def stop(current: Pass, batch: TextBatch) -> None:
        if current.batches == middle:
            raise Stop

    first = begin(model, reading, instruments)
    with pytest.raises(Stop):
        observe(model, reading, instruments, first, after_batch=stop)
    second = begin(model, reading, instruments)
    second.batches = middle
    observe(model, reading, instruments, second)
    for name, state in whole.states.items():
        merged = merge(first.states[name], second.states[name])
        for key, expected in state.items():
            torch.testing.assert_close(merged[key], expected, rtol=1e-12, atol=1e-12)


def test_a_pass_taken_up_again_is_bit_for_bit_one_pass(tiny_model: Any, make_reading: Any) -> None:
    model, reading = tiny_model("gpt2"), make_reading()
    whole = observe(model, reading, [Patterns()], begin(model, reading, [Patterns()]))

    class Stop(Exception):
        pass

    def stop(current: Pass, batch: TextBatch) -> None:
        if current.batches == 2:
            raise Stop

    resumed = begin(model, reading, [Patterns()])
    with pytest.raises(Stop):
        observe(model, reading, [Patterns()], resumed, after_batch=stop)
    observe(model, reading, [Patterns()], resumed)
    for key, expected in whole.states["heads"].items():
        assert torch.equal(resumed.states["heads"][key], expected)


def test_discovery_is_read_before_confirmation(tiny_model: Any, make_reading: Any) -> None:
    reading, seen = make_reading(), []

    class Watching(Patterns):
        def begin_batch(self, batch: TextBatch) -> None:
            super().begin_batch(batch)
            seen.append(batch.half)

    model, one = tiny_model("gpt2"), Watching()
    observe(model, reading, [one], begin(model, reading, [one]))
    assert list(dict.fromkeys(seen)) == ["discovery", "confirmation"]
    assert seen == sorted(seen, reverse=True)


# --- what a mean ablation needs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_means_and_removed_norms_are_those_of_all_discovery_positions_but_the_first(
    family: str, tiny_model: Any, tiny_hf: Any, make_reading: Any
) -> None:
    model, reading, hf = tiny_model(family), make_reading(), tiny_hf(family)
    state = observe(model, reading, [HeadMeans()], begin(model, reading, [HeadMeans()])).states["head_means"]
    layers, heads, width = model.anatomy.layers, model.anatomy.heads, model.anatomy.d_head
    outs = [
        hf.transformer.h[layer].attn.c_proj if family.startswith("gpt2") else hf.model.layers[layer].self_attn.o_proj
        for layer in range(layers)
    ]
    kept: list[list[torch.Tensor]] = [[] for _ in range(layers)]
    for layer, module in enumerate(outs):
        module.register_forward_pre_hook(lambda module, args, layer=layer: kept[layer].append(args[0][0, 1:].detach()))
    for material in ("text", "random"):
        for rows in kept:
            rows.clear()
        for window in reading.windows:
            unit = reading.units[window.unit]
            if unit.material == material and unit.half == "discovery":
                with torch.no_grad():
                    hf(torch.tensor([window.tokens]))
        found = reference(model, state, material)
        for layer, module in enumerate(outs):
            z = torch.cat(kept[layer]).double().unflatten(-1, (heads, width))
            mean = z.mean(dim=0)
            torch.testing.assert_close(found.mean.values["z"][layer].double(), mean, atol=1e-5, rtol=1e-4)
            weight = (module.weight if family.startswith("gpt2") else module.weight.T).detach().double()
            for head in range(heads):
                written = (z[:, head] - mean[head]) @ weight[head * width : (head + 1) * width]
                expected = written.square().sum(dim=1).mean().sqrt()
                assert float(found.removed[layer, head]) == pytest.approx(float(expected), rel=1e-3)


def test_confirmation_text_is_never_in_a_mean(tiny_model: Any, make_reading: Any) -> None:
    model, reading = tiny_model("gpt2"), make_reading()
    state = begin(model, reading, [HeadMeans()])
    observe(model, reading, [HeadMeans()], state)
    own = [window for window in reading.windows if reading.units[window.unit].half == "discovery"]
    expected = {m: sum(len(w.tokens) - 1 for w in own if reading.units[w.unit].material == m) for m in ("text", "random")}
    assert state.states["head_means"]["rows"].tolist() == [expected["text"], expected["random"]]
