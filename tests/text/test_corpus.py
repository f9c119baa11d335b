"""Corpora: what is read from where, what is refused, what is left out, and what a digest stands for."""

import errno
import json

import pytest

from innerworks.errors import TextError, UsageError
from innerworks.text import Corpus, Document
from innerworks.text.corpus import SHARED_RUN


def opened(path):
    return Corpus.open(f"file:{path}")


def words(*numbers):
    return " ".join(f"word{i}" for i in numbers)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_text_file_holds_documents_between_lines_of_percent_signs(tmp_path):
    (tmp_path / "a.txt").write_text("\nThe cat.\n\nIt sat.\n%%\nThe dog: 100 %% sure.\r\n%%\r\nAn owl.\n", encoding="utf-8")
    corpus = opened(tmp_path / "a.txt")
    assert [d.text for d in corpus.documents] == ["The cat.\n\nIt sat.", "The dog: 100 %% sure.", "An owl."]
    assert [d.id for d in corpus.documents] == ["a/0", "a/1", "a/2"]
    assert corpus.name == f"file:{tmp_path / 'a.txt'}" and corpus.notes == ()


def test_a_jsonl_file_says_what_each_document_is(tmp_path):
    rows = [
        {"text": "The cat.", "id": "x", "domain": "cats", "group": "book"},
        {"text": "Das Käuzchen.", "group": 7, "extra": [1]},
        {"text": "A dog."},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8")
    corpus = opened(tmp_path / "a.jsonl")
    assert [(d.id, d.text, d.group, d.unit) for d in corpus.documents] == [
        ("x", "The cat.", "book", "group/book"),
        ("2", "Das Käuzchen.", "7", "group/7"),
        ("3", "A dog.", None, "3"),
    ]


def test_a_folder_holds_one_document_per_text_file(tmp_path):
    for name, text in {"b.txt": "The dog.", "a.txt": "The cat.", "notes.md": "not read"}.items():
        (tmp_path / name).write_text(text)
    assert [(d.id, d.text) for d in opened(tmp_path).documents] == [("a", "The cat."), ("b", "The dog.")]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("a.txt", None, "There is no file .*a.txt"),
        ("a.jsonl", None, "There is no file .*a.jsonl"),
        ("a.parquet", b"PAR1", r"a.parquet: what can be read is .jsonl, .txt, or a folder"),
        ("a.txt", "Käse".encode("latin-1"), r"a.txt is not UTF-8 text \(byte 1\)"),
        ("a.jsonl", '{"text": "Käse"}'.encode("latin-1"), r"a.jsonl is not UTF-8 text"),
        ("a.txt", b"", "1 of 1 documents hold no word"),
        ("a.txt", b"the cat\n%%\n1234 !\n%%\n \n", r"2 of 3 documents hold no word \(a/1, a/2\)"),
        ("a.jsonl", b"", "there is no document"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "a.jsonl, line 2: not a JSON object"),
        ("a.jsonl", b'{"text": "a"}\n\n{"txt": "b"}', "a.jsonl, line 3: not a JSON object"),
        ("a.jsonl", b'{"text": 5}', "line 1: not a JSON object with a string"),
        ("a.jsonl", b'["text"]', "line 1"),
        ("a.jsonl", b'{"text": "a", "id": 1}\n{"text": "b", "id": 1}', r"1 ids are used more than once \(1\)"),
        ("a.jsonl", b'{"text": "a", "id": 2}\n{"text": "b"}', r"1 ids are used more than once \(2\)"),
    ],
)
def test_what_cannot_be_read_says_where_and_why(tmp_path, file, content, says):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(TextError, match=says):
        opened(tmp_path / file)


def test_what_the_system_refuses_is_said_in_its_words(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("The cat.")
    with pytest.raises(TextError, match=r"a.txt/b.txt cannot be read: Not a directory\."):
        opened(tmp_path / "a.txt" / "b.txt")
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(TextError, match=r"a.txt cannot be read: Permission denied\."):
        opened(tmp_path / "a.txt")


def refuse(*arguments, **options):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_file_of_a_folder_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "good.txt").write_text("The cat.")
    (tmp_path / "wrong.txt").write_bytes(b"\xff")
    with pytest.raises(TextError, match="wrong.txt is not UTF-8"):
        opened(tmp_path)


def test_an_empty_folder_holds_nothing_to_read(tmp_path):
    with pytest.raises(TextError, match="there is no document"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["biultin", "wikitext", "builtin:short", ""])
def test_an_unknown_corpus_is_a_usage_error(name):
    with pytest.raises(UsageError, match=f"No corpus is called '{name}'. Give builtin, builtin:long or file:PATH") as caught:
        Corpus.open(name)
    assert ("builtin" in str(caught.value).partition("Did you mean")[2]) == name.startswith("b")


def test_a_corpus_opens_as_itself(make_corpus):
    corpus = make_corpus(3)
    assert Corpus.open(corpus) is corpus


# --- repeats -----------------------------------------------------------------------------------------------------


def corpus_of(*texts, group=None):
    return Corpus.of("made", [Document(id=str(i), text=text, group=group) for i, text in enumerate(texts)])


def kept(corpus):
    return [d.id for d in corpus.documents]


def test_a_document_that_shares_twenty_words_with_an_earlier_one_is_left_out_and_noted():
    shared = words(*range(SHARED_RUN))
    corpus = corpus_of(f"one {shared} two", words(*range(50, 90)), f"three four {shared}")
    assert kept(corpus) == ["0", "1"]
    assert corpus.notes == ("1 documents left out, which share 20 words running with an earlier one: 2",)


def test_nineteen_shared_words_are_no_repeat():
    shared = words(*range(SHARED_RUN - 1))
    corpus = corpus_of(f"one {shared} two", f"three {shared} four")
    assert kept(corpus) == ["0", "1"] and corpus.notes == ()


def test_short_documents_that_are_the_same_are_repeats():
    assert kept(corpus_of("the cat sat", "the  cat\nsat", "the cat ran")) == ["0", "2"]


def test_a_repeat_inside_one_group_is_no_repeat():
    assert kept(corpus_of(words(*range(30)), words(*range(30)), group="book")) == ["0", "1"]


def test_a_document_that_was_left_out_makes_no_other_a_repeat():
    first, second = words(*range(30)), words(*range(40, 70))
    assert kept(corpus_of(first, f"{first} {second}", second)) == ["0", "2"]


def test_scripts_without_spaces_are_compared_by_runs_of_letters():
    def written(start, length):
        return "".join(chr(0x4E00 + i) for i in range(start, start + length))

    shared = written(0, 2 * SHARED_RUN)
    texts = [written(1000, 50) + shared, written(2000, 90), shared + written(3000, 50), shared[1:] + written(4000, 60)]
    assert kept(corpus_of(*texts)) == ["0", "1", "3"]


# --- domains, groups, digests ------------------------------------------------------------------------------------


def documents(counts):
    """So many documents per domain."""
    return [
        Document(id=f"{domain}{i}", text=f"{domain} text number {words(i)}", domain=domain)
        for domain, count in counts.items()
        for i in range(count)
    ]


def test_domains_with_fewer_than_six_units_are_put_together():
    domains = {d.id: d.domain for d in Corpus.of("made", documents({"cats": 6, "owls": 5, "dogs": 2})).documents}
    assert {domains[f"cats{i}"] for i in range(6)} == {"cats"}
    assert {domain for id, domain in domains.items() if not id.startswith("cats")} == {"mixed"}


def test_a_group_counts_as_one_unit_of_its_domain():
    chapters = [Document(id=str(i), text=f"chapter {words(i)}", domain="books", group=f"book {i % 3}") for i in range(12)]
    corpus = Corpus.of("made", [*documents({"cats": 6}), *chapters])
    assert {d.domain for d in corpus.documents if d.group} == {"mixed"}


def test_a_group_is_not_taken_for_a_document_of_the_same_name():
    alone, grouped = Document(id="a", text="the cat"), Document(id="b", text="the dog", group="a")
    assert alone.unit != grouped.unit


@pytest.mark.parametrize("changed", [{"text": "the dog"}, {"id": "2"}, {"domain": "cats"}, {"group": "book"}])
def test_a_digest_stands_for_what_is_read(changed):
    one = dict(id="1", text="the cat")
    corpus, again = Corpus.of("made", [Document(**one)]), Corpus.of("other name", [Document(**one)])
    assert corpus.digest == again.digest and len(corpus.digest) == 64
    other = Corpus(name="made", documents=(Document(**{**one, **changed}),))
    base = Corpus(name="made", documents=(Document(**one),))
    assert other.digest != base.digest


def test_a_digest_depends_on_the_order_of_documents():
    both = documents({"cats": 2})
    assert Corpus.of("made", both).digest != Corpus.of("made", both[::-1]).digest


def test_a_sample_keeps_so_many_per_domain_whatever_their_order():
    every = documents({"cats": 9, "owls": 7})
    sample = Corpus.of("made", every).sample(3)
    assert len(sample.documents) == 6
    assert {d.domain for d in sample.documents} == {"mixed"}  # too few of each are put together again
    assert set(kept(Corpus.of("made", every[::-1]).sample(3))) == set(kept(sample))
    assert set(kept(Corpus.of("made", every).sample(2))) < set(kept(sample))
    assert sample.notes == ("6 of 16 documents: at most 3 per domain",)
    whole = Corpus.of("made", every)
    assert whole.sample(9) is whole


# --- the built-in corpus ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builtin():
    return Corpus.open("builtin")


def test_the_builtin_corpus_has_ten_domains_of_sixteen_documents(builtin):
    domains = "news fiction science dialogue history french german spanish python mathematics".split()
    assert [d.domain for d in builtin.documents] == [domain for domain in domains for _ in range(16)]
    assert [d.id for d in builtin.documents][:2] == ["news/00", "news/01"]
    assert builtin.notes == () and all(d.text.strip("\n") == d.text for d in builtin.documents)


def test_the_builtin_long_corpus_has_eight_documents():
    long = Corpus.open("builtin:long")
    assert [d.domain for d in long.documents] == ["long"] * 8 and long.notes == ()


def test_no_two_builtin_documents_share_a_run_of_twenty_words(builtin):
    everything = [*builtin.documents, *Corpus.open("builtin:long").documents]
    owner = {}
    for document in everything:
        spoken = document.text.split()
        for i in range(len(spoken) - SHARED_RUN + 1):
            assert owner.setdefault(tuple(spoken[i : i + SHARED_RUN]), document.id) == document.id


def test_every_python_document_compiles(builtin):
    for document in builtin.documents:
        if document.domain == "python":
            compile(document.text, document.id, "exec")


def test_builtin_text_is_clean(builtin):
    for document in builtin.documents:
        assert document.text.isascii() or document.domain not in ("python",)
        assert not set(document.text) & set("\t\r\u00a0\u200b\ufeff\ufffd")


def test_the_builtin_languages_are_what_they_are_called(builtin):
    signs = {"french": " les ", "german": " der ", "spanish": " los ", "news": " the "}
    for domain, sign in signs.items():
        texts = " ".join(d.text for d in builtin.documents if d.domain == domain)
        assert all(texts.count(sign) > 3 * texts.count(other) for other in signs.values() if other != sign)


@pytest.mark.specimen
def test_builtin_documents_have_the_length_they_should_for_the_specimen(specimen, builtin):
    length = {d.id: len(specimen.tokenizer(d.text)["input_ids"]) for d in builtin.documents}
    assert {id: tokens for id, tokens in length.items() if not 150 <= tokens <= 250} == {}
    long = [len(specimen.tokenizer(d.text)["input_ids"]) for d in Corpus.open("builtin:long").documents]
    assert min(long) >= 1200
