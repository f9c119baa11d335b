"""Syntax: trees from treebanks, from the shipped annotations and from spaCy; their arcs among tokens; counts and baselines."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from innerworks.errors import TextError, UsageError
from innerworks.text import Corpus, Document, syntax, trees
from innerworks.text.syntax import Arc, Offset, annotate, baselines, best_offset, count, token_arcs, trees_of
from innerworks.text.trees import ROOT, Tree, builtin_trees, fault_of, line_of, provenance, trees_from

TEXT = "the uncommon owlets saw old mice ."
TREE = Tree(  # owlets is what `the` and `uncommon` belong to; saw is the root
    words=("the", "uncommon", "owlets", "saw", "old", "mice", "."),
    spans=((0, 3), (4, 12), (13, 19), (20, 23), (24, 27), (28, 32), (33, 34)),
    heads=(2, 2, 3, ROOT, 5, 3, 3),
    relations=("det", "amod", "nsubj", "root", "amod", "obj", "punct"),
)
ENGLISH = ("news", "fiction", "science", "dialogue", "history", "mathematics")


def look(relation, query, *targets, back=1):
    return Arc(relation=relation, query=query, targets=targets, words_back=(back,) * len(targets))


# --- arcs among tokens -----------------------------------------------------------------------------------------------


def test_the_last_token_of_a_word_looks_at_all_tokens_of_another_to_its_left():
    pieces = ["[UNK]", "owl", "##et", "##s", "the", "un", "##common", ".", "saw", "old", "mi", "##ce"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    offsets = PreTrainedTokenizerFast(tokenizer_object=tokenizer)(TEXT, return_offsets_mapping=True)["offset_mapping"]
    assert token_arcs([TREE], offsets) == (  # the | un common | owl et s | saw | old | mi ce | .
        look("amod<", 5, (1, 3)),
        look("det<", 5, (0, 1), back=2),
        look("nsubj<", 6, (3, 6)),
        look("amod<", 9, (7, 8)),
        look("obj", 9, (6, 7), back=2),
    )


def test_a_plain_name_looks_at_the_head_and_the_reverse_at_the_dependent():
    tree = Tree(words=("a", "b"), spans=((0, 1), (2, 3)), heads=(ROOT, 0), relations=("root", "obj:x"))
    assert token_arcs([tree], [(0, 1), (1, 3)]) == (look("obj", 1, (0, 1)),)
    tree = replace(tree, heads=(1, ROOT), relations=("obj:x", "root"))
    (arc,) = token_arcs([tree], [(0, 1), (1, 3)])
    assert arc == look("obj<", 1, (0, 1)) and arc.behaviour == "syntactic:obj<"


def test_a_head_with_two_dependents_of_a_kind_may_look_at_either():
    tree = Tree(
        words=("old", "red", "owl"), spans=((0, 3), (4, 7), (8, 11)), heads=(2, 2, ROOT), relations=("amod", "amod", "root")
    )
    (arc,) = token_arcs([tree], [(0, 3), (3, 7), (7, 11)])
    assert arc == Arc(relation="amod<", query=2, targets=((0, 1), (1, 2)), words_back=(2, 1))
    assert all(Offset(unit=unit, back=back).finds(arc) for unit in ("token", "word") for back in (1, 2))


@pytest.mark.parametrize(
    ("offsets", "found"),
    [
        ([(0, 3), (3, 12), (12, 19)], [("amod<", 2), ("det<", 2)]),  # a window that ends after `owlets`
        ([(0, 3), (3, 12), (12, 17)], []),  # and one that cuts it
        ([(6, 12), (12, 19), (19, 23)], [("nsubj<", 2)]),  # one that begins within `uncommon`
        ([(0, 0), (0, 3), (3, 12), (12, 19), (0, 0)], [("amod<", 3), ("det<", 3)]),  # special tokens in front and behind
        ([(0, 3), (3, 12), (12, 23)], [("amod<", 2), ("det<", 2)]),  # `saw` has no token of its own
        ([(0, 3), (3, 4), (4, 12), (13, 16), (16, 19)], [("amod<", 4), ("det<", 4)]),  # a blank of its own
        ([(0, 1), (0, 1), (1, 3), (4, 12), (12, 19)], [("amod<", 4), ("det<", 4)]),  # two bytes of one character
        ([(0, 0)], []),
        ([], []),
    ],
)
def test_only_words_with_all_their_tokens_in_view_have_arcs(offsets, found):
    assert [(arc.relation, arc.query) for arc in token_arcs([TREE], offsets)] == found


def test_arcs_never_leave_their_sentence_and_places_count_over_all_of_them():
    second = replace(TREE, spans=tuple((start + 35, end + 35) for start, end in TREE.spans))
    offsets = [span for tree in (TREE, second) for span in tree.spans]
    one, two = token_arcs([TREE], offsets), token_arcs([second], offsets)
    assert token_arcs([TREE, second], offsets) == one + two
    assert [arc.query + 7 for arc in one] == [arc.query for arc in two]


# --- counts and baselines --------------------------------------------------------------------------------------------


def test_counts_say_in_how_many_documents_a_relation_is():
    arcs = {"a": [look("obj", 3, (1, 2))] * 3 + [look("det<", 1, (0, 1))], "b": [look("obj", 3, (1, 2))], "c": []}
    counts = count(arcs)
    assert list(counts) == ["obj", "det<"] and (counts["obj"].arcs, counts["obj"].documents) == (4, 2)
    assert not counts["obj"].enough
    documents = {str(i): [look("obj", 3, (1, 2))] * 5 for i in range(20)}
    assert count(documents)["obj"].enough
    assert not count({id: arcs[:4] for id, arcs in documents.items()})["obj"].enough  # 80 arcs
    assert not count({"a": documents["0"] * 20, **dict(list(documents.items())[:18])})["obj"].enough  # 19 documents


def test_the_best_offset_is_chosen_on_one_half_and_applied_to_the_other():
    discovery = [look("obj", 9, (7, 8), back=2)] * 3 + [look("obj", 9, (4, 5), back=4)]
    confirmation = [look("obj", 9, (7, 8), back=2)] + [look("obj", 9, (4, 5), back=4)] * 3
    found = baselines([*discovery, look("det<", 1, (0, 1))], confirmation)
    assert list(found) == ["obj"]
    assert found["obj"].offset == Offset(unit="token", back=2)
    assert (found["obj"].chosen_at, found["obj"].accuracy, found["obj"].arcs) == (0.75, 0.25, 4)


def test_offsets_count_tokens_or_words():
    arcs = [look("nsubj<", 9, (9 - length, 9), back=2) for length in (3, 4, 5)]  # a word between, of no certain length
    arcs = [replace(arc, targets=((start - 1, start),)) for arc in arcs for ((start, _),) in [arc.targets]]
    assert best_offset(arcs) == Offset(unit="word", back=2)
    assert best_offset([look("det<", 9, (8, 9))]) == Offset(unit="token", back=1)
    with pytest.raises(UsageError, match="no arc to find"):
        syntax.accuracy(Offset(unit="token", back=1), [])


# --- treebanks -------------------------------------------------------------------------------------------------------

CONLLU = """\
# newdoc id = owls
# newpar
# sent_id = 1
# text = Today's owl didn't sleep.
1-2	Today's	_	_	_	_	_	_	_	_
1	Today	today	NOUN	NN	_	3	nmod:poss	_	_
2	's	's	PART	POS	_	1	case	_	_
3	owl	owl	NOUN	NN	_	6	nsubj	_	_
4-5	didn't	_	_	_	_	_	_	_	_
4	did	do	AUX	VBD	_	6	aux	_	_
5	n't	not	PART	RB	_	6	advmod	_	_
6	sleep	sleep	VERB	VB	_	0	root	_	SpaceAfter=No
6.1	slept	sleep	VERB	VB	_	_	_	_	_
7	.	.	PUNCT	.	_	6	punct	_	_

# sent_id = 2
1	(	(	PUNCT	-LRB-	_	2	punct	_	SpaceAfter=No
2	Oh	oh	INTJ	UH	_	0	root	_	X=1|SpaceAfter=No
3	)	)	PUNCT	-RRB-	_	2	punct	_	_

# newpar id = p2
# text = Il va au nid.
1	Il	il	PRON	_	_	2	nsubj	_	_
2	va	aller	VERB	_	_	0	root	_	_
3-4	au	_	_	_	_	_	_	_	_
3	à	à	ADP	_	_	5	case	_	_
4	le	le	DET	_	_	5	det	_	_
5	nid	nid	NOUN	_	_	2	obl	_	SpaceAfter=No
6	.	.	PUNCT	_	_	2	punct	_	_

# newdoc
1	Cats	cat	NOUN	_	_	0	root	_	_
"""


def opened(tmp_path, content, name="bank.conllu"):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return Corpus.open(f"file:{tmp_path / name}").documents


def test_a_treebank_gives_back_its_texts_and_its_trees(tmp_path):
    owls, cats = opened(tmp_path, CONLLU)
    assert (owls.id, owls.text) == ("owls", "Today's owl didn't sleep. (Oh)\n\nIl va au nid.")
    assert (cats.id, cats.text) == ("bank/1", "Cats")
    first, second, third = trees_of(owls)
    assert [owls.text[slice(*span)] for span in first.spans] == ["Today", "'s", "owl", "did", "n't", "sleep", "."]
    assert first.heads == (2, 0, 5, 5, 5, ROOT, 5) and first.relations[:3] == ("nmod:poss", "case", "nsubj")
    assert [owls.text[slice(*span)] for span in second.spans] == ["(", "Oh", ")"]
    assert third.words[2:4] == ("à", "le") and third.spans[2] == third.spans[3]
    assert owls.text[slice(*third.spans[3])] == "au" and owls.text[slice(*third.spans[4])] == "nid"


def test_words_that_share_a_token_have_one_set_of_arcs(tmp_path):
    owls, _ = opened(tmp_path, CONLLU)
    third = trees_of(owls)[2]
    arcs = token_arcs([third], list(dict.fromkeys(third.spans)))  # Il va au nid .
    assert [(arc.relation, arc.query, arc.targets) for arc in arcs] == [
        ("nsubj<", 1, ((0, 1),)),
        ("case<", 3, ((2, 3),)),
        ("obl", 3, ((1, 2),)),
    ]


def test_a_treebank_without_documents_is_cut_into_some_of_about_200_words(tmp_path):
    sentence = "\n".join(f"{i + 1}\tw{i}\t_\t_\t_\t_\t{i}\t{'dep' if i else 'root'}\t_\t_" for i in range(30))
    different = [sentence.replace("\tw", f"\tv{i}w") for i in range(16)]
    documents = opened(tmp_path, "\n\n".join(different).replace("\n", "\r\n"))
    assert [len(d.trees) for d in documents] == [7, 7, 2] and [d.id for d in documents] == ["bank/0", "bank/1", "bank/2"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("3	owl	owl	", "3	owl	", r"line 8: 9 columns, where 10 are separated by tabs"),
        ("3	owl", "4	owl", "line 8: the word is numbered '4', where 3 is due"),
        ("3	owl", "x	owl", "line 8: the word is numbered 'x'"),
        ("_	6	nsubj", "_	_	nsubj", r"line 8: word 3 \('owl'\) has no head or relation: '_', 'nsubj'"),
        ("_	6	nsubj", "_	6	_", "line 8: word 3"),
        ("_	6	nsubj", "_	9	nsubj", "line 5: .* no tree: word 3 depends on word 9, of 7"),
        ("_	6	nsubj", "_	0	nsubj", "line 5: .* no tree: 2 words are roots"),
        ("_	6	nsubj", "_	1	nsubj", "line 5: .* no tree: word 1 depends on itself"),
        ("4-5	didn't", "5-6	didn't", "line 9: the words '5-6' cannot follow word 3"),
        ("4-5	didn't", "4-b	didn't", "line 9: the words '4-b'"),
        ("# text = Today's owl", "# text = Today's cat", "line 5: 'owl' does not come next in .# text.: .cat didn"),
        (
            "1	Cats	cat	NOUN	_	_	0	root",
            "1-2	Cats	_	_	_	_	_	_",
            "line 3.: .* words are missing at its end",
        ),
    ],
)
def test_what_is_malformed_says_in_which_line(tmp_path, old, new, says):
    assert old in CONLLU
    with pytest.raises(TextError, match="bank.conllu, " + says):
        opened(tmp_path, CONLLU.replace(old, new, 1))


def test_a_treebank_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(TextError, match="There is no file"):
        Corpus.open(f"file:{tmp_path / 'none.conllu'}")
    with pytest.raises(TextError, match="there is no document"):
        opened(tmp_path, "# newdoc\n\n")


@pytest.mark.parametrize("heads", [(ROOT,), (1, ROOT), (ROOT, 0, 1, 2)])
def test_trees_have_one_root_and_no_circle(heads):
    assert fault_of(heads) is None


# --- the shipped annotations -----------------------------------------------------------------------------------------


def test_trees_survive_being_written_down():
    assert trees_from(line_of("d", TEXT, [TREE]), TEXT) == (TREE,)


def test_annotations_of_another_text_are_refused():
    with pytest.raises(TextError, match=r"annotations of news/07 were made of another text .*scripts/annotate_syntax.py"):
        trees_from(line_of("news/07", TEXT, [TREE]), TEXT + " ")
    stale = Document(id="d", text="The " + TEXT, trees=(TREE,))
    with pytest.raises(TextError, match=r"The trees of d are of another text: 'uncommon' should stand at characters 4 to 12"):
        trees_of(stale)


def test_annotations_of_other_documents_are_refused(monkeypatch):
    lines = (json.dumps({"format": 1}), line_of("owls/00", TEXT, [TREE]))
    monkeypatch.setattr(trees, "_lines", lambda domain: lines)
    assert builtin_trees("owls", {"owls/00": TEXT}) == {"owls/00": (TREE,)}
    with pytest.raises(TextError, match=r"of owls are of other documents than the built-in corpus has \(owls/01\)"):
        builtin_trees("owls", {"owls/00": TEXT, "owls/01": "More."})


def test_the_english_part_of_the_built_in_corpus_is_annotated():
    for document in Corpus.open("builtin").documents:
        found = trees_of(document)
        if document.domain not in ENGLISH:
            assert found == ()
            continue
        assert all(fault_of(tree.heads) is None for tree in found)
        covered = {i for tree in found for span in tree.spans for i in range(*span)}
        bare = "".join(" " if i in covered else character for i, character in enumerate(document.text))
        left_out = [part for part in bare.split("\n") if part.strip()]
        assert all(set(part) & set("$=\\^{}_*+<>|") for part in left_out), document.id  # sentences with a formula, no others
        starts = [span for tree in found for span in tree.spans]
        assert starts == sorted(set(starts)) and all(word.strip() == word != "" for tree in found for word in tree.words)
        assert {relation for tree in found for relation in tree.relations} <= _universal()


def _universal():
    return set(
        "acl advcl advmod amod appos aux case cc ccomp clf compound conj cop csubj dep det discourse dislocated expl fixed "
        "flat goeswith iobj list mark nmod nsubj nummod obj obl orphan parataxis punct reparandum root vocative xcomp".split()
    )


@pytest.mark.parametrize("domain", ENGLISH)
def test_annotations_say_how_they_were_made_and_how_good_they_are(domain):
    parser = provenance(domain)["parser"]
    assert parser["encoder"] and parser["gold"]
    assert 0.7 < parser["gold words, gold sentences"]["LAS"] < 1 and 0.7 < parser["raw text"]["LAS"] < 1
    assert provenance("french") == {}


def test_trees_are_part_of_what_was_read():
    with_trees = Document(id="d", text=TEXT, trees=(TREE,))
    other = replace(TREE, heads=(2, 2, 3, ROOT, 5, 4, 3))
    digests = {
        Corpus.of("c", [d]).digest for d in (with_trees, replace(with_trees, trees=()), replace(with_trees, trees=(other,)))
    }
    assert len(digests) == 3


# --- spaCy -----------------------------------------------------------------------------------------------------------


class Parsed(list):
    """As much of a spaCy Doc as is read."""

    def __init__(self, sentences, *, dependencies=True):
        self.sents = sentences
        self.dependencies = dependencies

    def has_annotation(self, name):
        return name == "DEP" and self.dependencies


def spacy_tokens(text, words, heads, relations):
    tokens, at = [], 0
    for i, word in enumerate(words):
        at = text.index(word, at)
        tokens.append(SimpleNamespace(i=i, idx=at, text=word, is_space=word.isspace(), dep_=relations[i]))
        at += len(word)
    for token, head in zip(tokens, heads, strict=True):
        token.head = tokens[head]
    return tokens


@pytest.fixture
def fake_spacy(monkeypatch):
    """A spaCy whose pipelines are functions of this test."""

    def install(pipeline):
        module = SimpleNamespace(load=lambda name: pipeline if name == "mine" else _missing(name))
        monkeypatch.setattr(syntax.importlib, "import_module", lambda name: module)

    return install


def _missing(name):
    raise OSError(f"[E050] Can't find model '{name}'.")


def test_a_spacy_pipeline_gives_trees_without_its_white_space_tokens(fake_spacy):
    text = "Owls saw\n\nred mice."
    words, relations = ["Owls", "saw", "\n\n", "red", "mice", "."], ["nsubj", "ROOT", "dep", "amod", "obj", "punct"]
    fake_spacy(lambda text: Parsed([spacy_tokens(text, words, [1, 1, 1, 4, 2, 1], relations)]))
    (document,) = annotate([Document(id="d", text=text)], "mine")
    (tree,) = trees_of(document)
    assert tree.words == ("Owls", "saw", "red", "mice", ".") and tree.spans[3] == (14, 18)
    assert tree.heads == (1, ROOT, 3, 1, 1) and tree.relations == ("nsubj", "root", "amod", "obj", "punct")


def test_words_under_a_root_of_white_space_get_a_root_of_their_own(fake_spacy):
    tokens = spacy_tokens(" a b", [" ", "a", "b"], [0, 0, 0], ["ROOT", "x", "y"])
    fake_spacy(lambda text: Parsed([tokens, [tokens[0]]]))
    (document,) = annotate([Document(id="d", text=" a b")], "mine")
    assert [(tree.heads, tree.relations) for tree in document.trees] == [((ROOT, 0), ("root", "dep"))]


def test_a_real_spacy_pipeline_is_loaded_from_its_folder(tmp_path):
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed (extra [syntax])")
    pipeline = spacy.blank("en")
    parser = pipeline.add_pipe("parser")
    doc = spacy.tokens.Doc(pipeline.vocab, words=["Owls", "saw", "mice"], heads=[1, 1, 1], deps=["nsubj", "ROOT", "obj"])
    pipeline.initialize(lambda: [spacy.training.Example(pipeline.make_doc("Owls saw mice"), doc)])
    assert parser.labels
    pipeline.to_disk(tmp_path)
    (document,) = annotate([Document(id="d", text="Owls saw\n\nmice. They didn't sleep.")], str(tmp_path))
    words = [word for tree in trees_of(document) for word in tree.words]
    assert words == ["Owls", "saw", "mice", ".", "They", "did", "n't", "sleep", "."]
    assert all(fault_of(tree.heads) is None for tree in document.trees)


def test_what_spacy_lacks_is_said_clearly(fake_spacy, monkeypatch):
    documents = [Document(id="d", text=TEXT)]
    fake_spacy(lambda text: Parsed([], dependencies=False))
    with pytest.raises(UsageError, match="'mine' has no dependency parser"):
        annotate(documents, "mine")
    with pytest.raises(UsageError, match="no spaCy pipeline 'yours'.*innerworks fetches none"):
        annotate(documents, "yours")
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    with pytest.raises(UsageError, match=r"not installed. pip install 'innerworks\[syntax\]'"):
        annotate(documents, "mine")
