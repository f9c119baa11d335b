"""Readings: windows that cover every token, halves dealt within strata, batches of one kind."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch

from innerworks.errors import TextError
from innerworks.text import Corpus, Document, read
from innerworks.text.reading import SHORTEST, batch_of, opening_tokens
from innerworks.text.trees import ROOT, Tree

VOCAB, POSITIONS = 320, 192


@pytest.fixture(scope="module", params=["plain", "opening"])
def tokenizer(request, tiny_tokenizer, opening_tokenizer):
    return tiny_tokenizer if request.param == "plain" else opening_tokenizer


def prepared(corpus, tokenizer, **options):
    return read(corpus, tokenizer, **{"vocab": VOCAB, "max_positions": POSITIONS, **options})


def windows_of(reading, material):
    found = defaultdict(list)
    for window in reading.windows:
        if reading.units[window.unit].material == material:
            found[reading.units[window.unit].id].append(window)
    return found


@pytest.mark.parametrize("window", [50, 64, 192, 256])
def test_windows_cover_every_token_once_but_for_short_tails(make_corpus, tokenizer, window):
    corpus = make_corpus(30, length=90)
    reading = prepared(corpus, tokenizer, window=window)
    opening, window = opening_tokens(tokenizer), min(window, POSITIONS)
    room, found = window - len(opening), windows_of(reading, "text")
    for document in corpus.documents:
        ids = tokenizer(document.text, add_special_tokens=False)["input_ids"]
        parts = found[document.id]
        assert all(part.tokens[: len(opening)] == opening and len(part.tokens) <= window for part in parts)
        read_tokens = [token for part in parts for token in part.tokens[len(opening) :]]
        tail = len(ids) % room if len(ids) > room else 0
        assert read_tokens == ids[: len(ids) - tail if tail < SHORTEST else None]
        assert all(len(part.words) == len(part.kinds) == len(part.tokens) for part in parts)


def test_a_bos_stands_at_the_front_of_every_window_and_belongs_to_no_word(make_corpus, opening_tokenizer):
    reading = prepared(make_corpus(30, length=90), opening_tokenizer, window=50)
    for window in reading.windows:
        assert window.tokens[0] == 1 and window.words[0] is None and window.kinds[0] is None
        assert 1 not in window.tokens[1:]
    assert opening_tokens(opening_tokenizer) == (1,)


def test_a_tokenizer_without_a_bos_gets_none(tiny_tokenizer):
    assert opening_tokens(tiny_tokenizer) == ()


def test_words_count_on_through_the_windows_of_a_document(tiny_tokenizer, make_corpus):
    reading = prepared(make_corpus(30, length=90), tiny_tokenizer, window=50)
    for parts in windows_of(reading, "text").values():  # w123: letters, then digits: a token belongs to its letters
        assert [word for part in parts for word in part.words] == [2 * i for i in range(sum(len(p.tokens) for p in parts))]


def test_a_batch_knows_pieces_of_words_of_letters_and_marks(make_corpus, opening_tokenizer):
    texts = {f"d{i}": f"the cat , w{i + 30} . 12 sat " * 8 + "the" * (i % 3) for i in range(24)}
    corpus = Corpus.of("made", [Document(id=name, text=text) for name, text in texts.items()])
    reading = prepared(corpus, opening_tokenizer, sequences=4)
    windows = {(window.unit, window.tokens): window for window in reading.windows}
    for half in ("discovery", "confirmation"):
        for batch in reading.batches(half):
            for row, (unit, mask) in enumerate(zip(batch.units.tolist(), batch.mask, strict=True)):
                window = windows[unit, tuple(batch.tokens[row][mask].tolist())]
                length, told = len(window.tokens), zip(window.words, window.kinds, strict=True)
                assert batch.words[row, :length].tolist() == [word if kind == "letter" else -1 for word, kind in told]
                assert batch.marks[row, :length].tolist() == [kind == "other" for kind in window.kinds]
                assert (batch.words[row, length:] == -1).all() and not batch.marks[row, length:].any()
                assert batch.material == "text" or ((batch.words[row] == -1).all() and not batch.marks[row].any())
                if batch.material == "text":
                    assert window.kinds[:8] == (None, "letter", "letter", "other", "letter", "other", "digit", "letter")
                    assert batch.words[row, :8].tolist() == [-1, 0, 1, -1, 3, -1, -1, 7]


def test_a_batch_moves_with_all_that_is_compared_to_patterns(make_corpus, tiny_tokenizer):
    batch = prepared(make_corpus(30), tiny_tokenizer).batches("discovery")[0]
    moved = batch.to(torch.device("meta"))
    assert {name for name in vars(moved) if getattr(getattr(moved, name), "is_meta", False)} == {
        "tokens",
        "mask",
        "words",
        "marks",
        "alike",
    }


# --- syntax ------------------------------------------------------------------------------------------------------


def with_trees(corpus: Corpus, every: int = 1) -> Corpus:
    """Each word of every so-manieth document depends on the third after it, the last ones on the last."""
    documents = []
    for i, document in enumerate(corpus.documents):
        spans = [(found.start(), found.end()) for found in re.finditer(r"\S+", document.text)]
        heads = [min(word + 3, len(spans) - 1) for word in range(len(spans) - 1)] + [ROOT]
        tree = Tree(words=tuple(document.text.split()), spans=tuple(spans), heads=tuple(heads), relations=("obj",) * len(heads))
        documents.append(replace(document, trees=(tree,)) if i % every == 0 else document)
    return Corpus.of("made", documents)


@pytest.mark.parametrize("window", [50, 192])
def test_windows_carry_the_arcs_among_their_own_tokens(make_corpus, tokenizer, window):
    corpus = with_trees(make_corpus(30, length=90), every=3)
    reading = prepared(corpus, tokenizer, window=window)
    opening, found = len(opening_tokens(tokenizer)), windows_of(reading, "text")
    for document in corpus.documents:
        for part in found[document.id]:
            last = None if part is not found[document.id][-1] else len(part.tokens) - 1  # what the last word governs
            expected = [] if not document.trees else range(opening + 3, len(part.tokens))
            assert [arc.query for arc in part.arcs] == list(expected)
            assert all(arc.relation == "obj<" for arc in part.arcs)
            assert all(arc.targets[-1] == (arc.query - 3, arc.query - 2) for arc in part.arcs if arc.query != last)
    assert not any(window.arcs for parts in windows_of(reading, "random").values() for window in parts)


def test_batches_give_arcs_by_row_and_leave_out_what_a_cut_window_no_longer_holds(make_corpus, opening_tokenizer):
    reading = prepared(with_trees(make_corpus(30, length=60)), opening_tokenizer)
    windows = {(window.unit, window.tokens): window for window in reading.windows}
    for half in ("discovery", "confirmation"):
        for batch in reading.batches(half):
            own = [(int(u), tuple(t[m].tolist())) for u, t, m in zip(batch.units, batch.tokens, batch.mask, strict=True)]
            assert batch.arcs == tuple(windows[key].arcs for key in own)
    whole = reading.windows[0]
    cut = replace(whole, tokens=whole.tokens[:20], words=whole.words[:20], kinds=whole.kinds[:20])
    (row,) = batch_of([cut], "text", "", "discovery").arcs
    assert row == whole.arcs[: len(row)] and [arc.query for arc in row] == list(range(4, 20))


def test_trees_of_another_text_are_refused(make_corpus, tiny_tokenizer):
    documents = list(with_trees(make_corpus(30)).documents)
    documents[3] = replace(documents[3], text="x" + documents[3].text)
    with pytest.raises(TextError, match="trees of .* are of another text"):
        prepared(Corpus.of("made", documents), tiny_tokenizer)


def test_a_document_shorter_than_the_shortest_window_is_read(tiny_tokenizer, make_corpus):
    reading = prepared(make_corpus(30, length=5), tiny_tokenizer)
    assert len(windows_of(reading, "text")) == 30


def test_halves_are_balanced_within_every_stratum(make_corpus, tiny_tokenizer):
    reading = prepared(make_corpus(45, domains=("owls", "cats", "dogs")), tiny_tokenizer, sequences=11)
    count = Counter((unit.stratum, unit.half) for unit in reading.units)
    for stratum in ("owls", "cats", "dogs", "random"):
        assert 0 <= count[stratum, "discovery"] - count[stratum, "confirmation"] <= 1
    assert count["random", "discovery"] + count["random", "confirmation"] == 11


def test_halves_do_not_depend_on_the_order_or_the_names_of_documents(make_corpus, tiny_tokenizer):
    corpus = make_corpus(40)
    shuffled = Corpus.of("made", [replace(d, id=f"x{d.id}") for d in corpus.documents[::-1]])
    halves = [{u.id.removeprefix("x"): u.half for u in prepared(c, tiny_tokenizer).units} for c in (corpus, shuffled)]
    assert halves[0] == halves[1]


def test_the_documents_of_a_group_are_one_unit(tiny_tokenizer, make_corpus):
    chapters = [replace(d, group=f"book {i // 4}", domain="books") for i, d in enumerate(make_corpus(160, length=8).documents)]
    reading = prepared(Corpus.of("made", chapters), tiny_tokenizer)
    assert Counter(u.stratum for u in reading.units if u.material == "text") == {"books": 40}
    assert all(len(parts) == 4 for parts in windows_of(reading, "text").values())
    assert reading.tokens == reading.tokens_of("text") + reading.tokens_of("random")
    for half in ("discovery", "confirmation"):
        for batch in reading.batches(half):  # so that each window has others of its kind to be compared with
            assert len(set(batch.alike.tolist())) == len(batch.alike) or batch.material == "random"


def test_every_window_is_in_exactly_one_batch_of_its_half(make_corpus, tiny_tokenizer):
    reading = prepared(make_corpus(41, length=90), tiny_tokenizer, window=50, sequences=13)
    seen = []
    for half in ("discovery", "confirmation"):
        for batch in reading.batches(half, size=4):
            units = [reading.units[int(unit)] for unit in batch.units]
            assert {(u.stratum, u.material, u.half) for u in units} == {(batch.stratum, batch.material, half)}
            for row, mask, unit, alike in zip(batch.tokens, batch.mask, batch.units, batch.alike, strict=True):
                assert not mask[int(mask.sum()) :].any() and (row[~mask] == 0).all()  # padded on the right
                seen.append((int(unit), tuple(row[mask].tolist()), int(alike)))
    assert Counter(seen) == Counter((w.unit, w.tokens, w.alike) for w in reading.windows)
    assert sum(len(tokens) for _, tokens, _ in seen) == reading.tokens


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches_are_as_few_and_as_equal_as_can_be(make_corpus, tiny_tokenizer, size):
    reading = prepared(make_corpus(41), tiny_tokenizer, sequences=13)
    rows = defaultdict(list)
    for batch in reading.batches("discovery", size=size):
        rows[batch.stratum].append(len(batch.tokens))
        assert batch.size == int(batch.mask.sum()) and batch.tokens.dtype == torch.long
    for sizes in rows.values():
        assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-sum(sizes) // size)


def test_windows_of_one_document_are_alike_and_sequences_with_the_same_gap_too(make_corpus, tiny_tokenizer):
    reading = prepared(make_corpus(30, length=90), tiny_tokenizer, window=50)
    for parts in windows_of(reading, "text").values():
        assert {part.alike for part in parts} == {parts[0].unit}
    for parts in windows_of(reading, "random").values():
        tokens = list(parts[0].tokens)
        gaps = {tokens.index(token, i + 1) - i for i, token in enumerate(tokens) if token in tokens[i + 1 :]}
        assert gaps == {parts[0].alike}


def test_generated_sequences_fit_the_model_with_what_is_put_in_front(make_corpus, opening_tokenizer):
    reading = prepared(make_corpus(30), opening_tokenizer, max_positions=64)
    assert {len(parts[0].tokens) for parts in windows_of(reading, "random").values()} == {64}
    assert max(len(window.tokens) for window in reading.windows) == 64
    free = prepared(make_corpus(30), opening_tokenizer, max_positions=None)
    assert {len(parts[0].tokens) for parts in windows_of(free, "random").values()} == {129}


def test_a_reading_is_the_same_for_the_same_seed_only(make_corpus, tiny_tokenizer):
    corpus = make_corpus(30)
    first, again, other = (prepared(corpus, tiny_tokenizer, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert windows_of(first, "text") == windows_of(other, "text")
    assert windows_of(first, "random") != windows_of(other, "random")


@pytest.mark.parametrize(("count", "enough"), [(24, True), (23, False), (1, False)])
def test_too_few_documents_to_decide_on_are_refused_with_the_least(make_corpus, tiny_tokenizer, count, enough):
    corpus = make_corpus(count, domains=("owls",))
    if enough:
        assert len(prepared(corpus, tiny_tokenizer).units) == 24 + 64
        return
    with pytest.raises(
        TextError, match=f"made has {count} documents.*leaves {count // 2} to confirm.*12.*separated by lines of %%"
    ):
        prepared(corpus, tiny_tokenizer)


def test_odd_strata_that_leave_too_few_to_confirm_on_are_refused_with_how_many(make_corpus, tiny_tokenizer):
    corpus = make_corpus(23)
    with pytest.raises(TextError, match="made has 23 documents, which leaves 11 to confirm on"):
        prepared(corpus, tiny_tokenizer)


def test_a_tokenizer_that_cannot_say_what_its_tokens_cover_is_refused(make_corpus):
    from transformers import PreTrainedTokenizer

    class Slow(PreTrainedTokenizer):
        vocab_size = 320

        def get_vocab(self):
            return {f"w{i}": i for i in range(320)}

        def _tokenize(self, text):
            return text.split()

        def _convert_token_to_id(self, token):
            return self.get_vocab().get(token, 0)

        def _convert_id_to_token(self, index):
            return f"w{index}"

    with pytest.raises(TextError, match="Slow cannot say which characters its tokens cover .*fast tokenizer"):
        prepared(make_corpus(30), Slow())


def test_documents_of_one_reading_are_those_of_its_corpus_in_order(tiny_tokenizer, make_corpus):
    corpus = make_corpus(30)
    units = prepared(corpus, tiny_tokenizer, sequences=2).units
    assert [unit.id for unit in units] == [d.id for d in corpus.documents] + ["random/00", "random/01"]
    assert [unit.stratum for unit in units] == [d.domain for d in corpus.documents] + ["random"] * 2


@pytest.mark.specimen
def test_the_builtin_corpus_reads_for_the_specimen(specimen):
    a = specimen.anatomy
    reading = read(Corpus.open("builtin"), specimen.tokenizer, vocab=a.vocab, max_positions=a.max_positions)
    assert len(reading.units) == 160 + 64 and len(reading.windows) == 160 + 64
    for half in ("discovery", "confirmation"):
        assert Counter(len(batch.tokens) for batch in reading.batches(half)) == {8: 14}


def test_a_document_is_a_plain_value():
    document = Document(id="a", text="the cat")
    assert document.domain == "text" and document.unit == "a"
    assert document == Document(id="a", text="the cat") and hash(document) == hash(Document(id="a", text="the cat"))
