"""Where do the arcs of a syntactic tree lie among a model's tokens, and which fixed offset finds them best?

1. `trees_of` gives the trees of a document: shipped with the built-in corpus, gold from a treebank (`file:x.conllu`), or made
   by `annotate` with a spaCy pipeline that the user names (extra `[syntax]`).
2. `token_arcs` puts them on the tokens of any tokenizer that knows the characters of its tokens. A query sees only what lies
   left of it, so each arc serves one direction: **`nsubj` is looked up from the dependent (the query) at its head, `nsubj<`
   from the head (the query) at its dependents.** The last token of a word looks; any token of the other word is right.
   Roots and punctuation are left out, and subtypes (`nsubj:pass`) are not told apart.
3. What a head must beat is the best fixed offset (`baselines`): 1 to 10 tokens or words back, chosen per relation and
   direction on one half of the documents and applied to the other (Voita et al. 2019, arXiv:1905.09418; Clark et al. 2019,
   arXiv:1906.04341).

A relation is measured only where there is enough of it (`count`, `Count.enough`). Nothing here looks at a model.
"""

import importlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from innerworks.errors import TextError, UsageError
from innerworks.text.corpus import Document
from innerworks.text.trees import ROOT, Tree

LEFT_OUT = ("root", "punct")
FARTHEST = 10  # the largest offset tried
LEAST_ARCS, LEAST_DOCUMENTS = 100, 20  # on the confirmation half; with fewer a relation is not measured

Offsets = Sequence[tuple[int, int]]  # of each token: the characters it covers, half open


@dataclass(frozen=True, kw_only=True)
class Arc:
    """One look back along a relation: from a token to all words that stand in the relation to its word."""

    relation: str  # `nsubj`: from the dependent to its head; `nsubj<`: from the head to its dependents
    query: int  # the token that looks: the last of its word
    targets: tuple[tuple[int, int], ...]  # the tokens of each word that is right, half open
    words_back: tuple[int, ...]  # and how many words back it stands

    @property
    def behaviour(self) -> str:
        """Its name in findings."""
        return f"syntactic:{self.relation}"


@dataclass(frozen=True, kw_only=True)
class Offset:
    """So many tokens, or words, back."""

    unit: Literal["token", "word"]
    back: int

    def finds(self, arc: Arc) -> bool:
        """Does this offset lead from the arc's query to one of its targets?"""
        if self.unit == "word":
            return self.back in arc.words_back
        return any(start <= arc.query - self.back < end for start, end in arc.targets)


ALL_OFFSETS = tuple(Offset(unit=unit, back=back) for unit in ("token", "word") for back in range(1, FARTHEST + 1))


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What the best fixed offset reaches for one relation and direction."""

    offset: Offset
    chosen_at: float  # its accuracy where it was chosen, in [0, 1]
    accuracy: float  # and on the other half
    arcs: int  # on the other half


@dataclass(frozen=True, kw_only=True)
class Count:
    """How often a relation can be looked up, and in how many documents."""

    arcs: int
    documents: int

    @property
    def enough(self) -> bool:
        """Are there enough of them to measure the relation (>= 100 in >= 20 documents of the confirmation half)?"""
        return self.arcs >= LEAST_ARCS and self.documents >= LEAST_DOCUMENTS


# --- trees -----------------------------------------------------------------------------------------------------------


def trees_of(document: Document) -> tuple[Tree, ...]:
    """What are the sentences of a document, as trees? None where its syntax is not known; stale ones are refused."""
    for tree in document.trees:
        for word, span in zip(tree.words, tree.spans, strict=True):
            there = document.text[slice(*span)]
            if there.casefold() != word.casefold() and tree.spans.count(span) == 1:
                raise TextError(
                    f"The trees of {document.id} are of another text: {word!r} should stand at characters {span[0]} to {span[1]}"
                    f", where the text has {there!r}. Annotate the text as it is now."
                )
    return document.trees


def annotate(documents: Iterable[Document], model: str) -> tuple[Document, ...]:
    """Parse documents with a spaCy pipeline (a folder, or the name of an installed one).

    Relations are named as the pipeline names them: those of Universal Dependencies where it was trained on them; the English
    pipelines of spaCy itself say `dobj`, `prep` and `pobj` where those say `obj`, `case` and `obl` or `nmod`.
    """
    pipeline = _pipeline(model)
    return tuple(replace(document, trees=tuple(_parsed(pipeline(document.text), model))) for document in documents)


def _pipeline(model: str) -> Any:
    try:
        spacy = importlib.import_module("spacy")
    except ImportError as error:
        raise UsageError("Annotating text needs spaCy, which is not installed. pip install 'innerworks[syntax]'") from error
    try:
        return spacy.load(model)
    except OSError as error:
        raise UsageError(
            f"There is no spaCy pipeline {model!r}: neither a folder that holds one nor the name of an installed package. "
            "innerworks fetches none; give the path of a pipeline with a parser."
        ) from error


def _parsed(parsed: Any, model: str) -> Iterable[Tree]:
    """The sentences of a spaCy Doc; its white-space tokens are left out, and what hangs on them moves up."""
    if not parsed.has_annotation("DEP"):
        raise UsageError(f"The spaCy pipeline {model!r} has no dependency parser. Give one that has.")
    for sentence in parsed.sents:
        tokens = [token for token in sentence if not token.is_space]
        if not tokens:
            continue
        place = {token.i: i for i, token in enumerate(tokens)}
        heads, relations = _upwards(tokens, place)
        spans = tuple((token.idx, token.idx + len(token.text)) for token in tokens)
        yield Tree(words=tuple(token.text for token in tokens), spans=spans, heads=heads, relations=relations)


def _upwards(tokens: list[Any], place: dict[int, int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    heads, relations = [], []
    root: int | None = None
    for i, token in enumerate(tokens):
        above = token.head
        while above.i not in place and above.head.i != above.i:
            above = above.head
        if above.i != token.i and above.i in place:
            heads.append(place[above.i])
            relations.append(token.dep_)
        else:  # a root, or below a root of white space: the first such word is the root, others hang on it
            heads.append(ROOT if root is None else root)
            relations.append("root" if root is None else "dep")
            root = i if root is None else root
    return tuple(heads), tuple(relations)


# --- arcs among tokens -----------------------------------------------------------------------------------------------


def token_arcs(trees: Iterable[Tree], offsets: Offsets) -> tuple[Arc, ...]:
    """The arcs that tokens can look up, given the characters of the document that each token covers.

    The tokens may be a window of the document: words cut by its ends, or sharing their only token with the word before,
    have no arcs. Tokens that cover nothing (a BOS) count as places.

    >>> tree = Tree(words=("the", "owlet"), spans=((0, 3), (4, 9)), heads=(1, -1), relations=("det", "root"))
    >>> token_arcs([tree], [(0, 3), (3, 7), (7, 9)])
    (Arc(relation='det<', query=2, targets=((0, 1),), words_back=(1,)),)
    """
    trees = list(trees)
    arcs: list[Arc] = []
    for tree, places in zip(trees, tokens_of_words(trees, offsets), strict=True):
        arcs += _arcs(tree, places)
    return tuple(arcs)


def tokens_of_words(trees: Sequence[Tree], offsets: Offsets) -> list[list[tuple[int, int] | None]]:
    """For each word of each tree its tokens, half open: those whose first visible character is its own.

    None for a word that is cut by the ends of the window or has no token of its own.
    """
    seen = [(start, end) for start, end in offsets if end > start]
    low, high = (min(start for start, _ in seen), max(end for _, end in seen)) if seen else (0, 0)
    words = [span for tree in trees for span in tree.spans]
    found: list[tuple[int, int] | None] = [None] * len(words)
    word = 0
    for token, (start, end) in enumerate(offsets):
        while word < len(words) and words[word][1] <= start:
            word += 1
        if end <= start or word == len(words) or end <= words[word][0]:
            continue
        first = found[word]
        found[word] = (token if first is None else first[0], token + 1)
    whole = [place if low <= start and end <= high else None for place, (start, end) in zip(found, words, strict=True)]
    after = iter(whole)
    return [[next(after) for _ in tree.spans] for tree in trees]


def _arcs(tree: Tree, places: list[tuple[int, int] | None]) -> list[Arc]:
    looks: dict[tuple[int, str], list[tuple[tuple[int, int], int]]] = defaultdict(list)
    for word, (head, label) in enumerate(zip(tree.heads, tree.relations, strict=True)):
        relation = label.split(":")[0]
        if head == ROOT or relation in LEFT_OUT:
            continue
        query, target = (places[word], places[head]) if head < word else (places[head], places[word])
        if query is not None and target is not None:
            direction = "" if head < word else "<"
            looks[query[1] - 1, relation + direction].append((target, abs(word - head)))
    return [
        Arc(relation=relation, query=query, targets=tuple(t for t, _ in right), words_back=tuple(back for _, back in right))
        for (query, relation), right in sorted(looks.items())
    ]


# --- counts and baselines --------------------------------------------------------------------------------------------


def count(documents: Mapping[str, Iterable[Arc]]) -> dict[str, Count]:
    """How much is there of each relation and direction in these documents (by id), most frequent first?"""
    arcs: dict[str, int] = defaultdict(int)
    within: dict[str, set[str]] = defaultdict(set)
    for id, looks in documents.items():
        for arc in looks:
            arcs[arc.relation] += 1
            within[arc.relation].add(id)
    order = sorted(arcs, key=lambda relation: (-arcs[relation], relation))
    return {relation: Count(arcs=arcs[relation], documents=len(within[relation])) for relation in order}


def accuracy(offset: Offset, arcs: Sequence[Arc]) -> float:
    """Share of arcs that a fixed offset finds, in [0, 1]."""
    if not arcs:
        raise UsageError("There is no arc to find, so an offset has no accuracy.")
    return sum(offset.finds(arc) for arc in arcs) / len(arcs)


def best_offset(arcs: Sequence[Arc]) -> Offset:
    """The fixed offset that finds most of these arcs; among equals the shortest, tokens before words."""
    return max(ALL_OFFSETS, key=lambda offset: (sum(offset.finds(arc) for arc in arcs), -offset.back))


def baselines(discovery: Iterable[Arc], confirmation: Iterable[Arc]) -> dict[str, Baseline]:
    """What does the best fixed offset reach, per relation and direction, when it is chosen on other documents?

    Only relations of both halves appear.
    """
    chosen_on, applied_to = _by_relation(discovery), _by_relation(confirmation)
    found = {}
    for relation, arcs in chosen_on.items():
        if others := applied_to.get(relation):
            offset = best_offset(arcs)
            found[relation] = Baseline(
                offset=offset, chosen_at=accuracy(offset, arcs), accuracy=accuracy(offset, others), arcs=len(others)
            )
    return found


def _by_relation(arcs: Iterable[Arc]) -> dict[str, list[Arc]]:
    grouped: dict[str, list[Arc]] = defaultdict(list)
    for arc in arcs:
        grouped[arc.relation].append(arc)
    return dict(sorted(grouped.items()))
