"""Which word depends on which? One tree per sentence, and the file in which the built-in corpus keeps its own.

1. A `Tree` has the words of a sentence, the characters each covers in its document, its head and its relation to it
   (Universal Dependencies, universaldependencies.org).
2. Each English domain of the built-in corpus has a file `builtin/DOMAIN.syntax.jsonl`: a header that says how the trees were
   made and how good they are, then one line per document: its id, the digest of its text, and its trees as numbers.
3. Trees are of one text: whoever changes a text must make them anew (`scripts/annotate_syntax.py`). Stale ones are refused.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from innerworks.errors import TextError

ROOT = -1  # the head of a word that depends on none


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One sentence: what its words are, where they stand, and what each depends on."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]  # characters of the document, half open
    heads: tuple[int, ...]  # the place of each word's head in this sentence; -1 for the root
    relations: tuple[str, ...]  # as annotated, subtypes included: nsubj, nsubj:pass, ...


def fault_of(heads: Iterable[int]) -> str | None:
    """What keeps these heads from being a tree? None where they are one: a single root, and every word below it."""
    heads = list(heads)
    roots = sum(head == ROOT for head in heads)
    if roots != 1:
        return f"{roots} words are roots, and one must be"
    for word, head in enumerate(heads):
        if not ROOT <= head < len(heads):
            return f"word {word + 1} depends on word {head + 1}, of {len(heads)}"
    for word in range(len(heads)):
        above, steps = word, 0
        while above != ROOT:
            above, steps = heads[above], steps + 1
            if steps > len(heads):
                return f"word {word + 1} depends on itself, through others"
    return None


def digest(text: str) -> str:
    """SHA-256 of a text: what its trees belong to."""
    return hashlib.sha256(text.encode()).hexdigest()


# --- the trees of the built-in corpus --------------------------------------------------------------------------------


def line_of(id: str, text: str, trees: Iterable[Tree]) -> str:
    """One document's line in a file of trees. Words are left out, being characters of the text."""
    sentences = [
        {
            "starts": [start for start, _ in tree.spans],
            "lengths": [end - start for start, end in tree.spans],
            "heads": list(tree.heads),
            "relations": " ".join(tree.relations),
        }
        for tree in trees
    ]
    return json.dumps({"id": id, "sha256": digest(text), "sentences": sentences}, separators=(",", ":"))


def trees_from(line: str, text: str) -> tuple[Tree, ...]:
    """Read one document's line; refused where it was made of another text."""
    row = json.loads(line)
    if row["sha256"] != digest(text):
        raise TextError(
            f"The syntactic annotations of {row['id']} were made of another text (SHA-256 {row['sha256'][:12]}..., and the text "
            f"now has {digest(text)[:12]}...). Make them anew: python scripts/annotate_syntax.py --help says how."
        )
    return tuple(_tree(sentence, text) for sentence in row["sentences"])


def builtin_trees(domain: str, texts: dict[str, str]) -> dict[str, tuple[Tree, ...]]:
    """The trees of a domain's documents, by id; none for a domain that is not annotated."""
    lines = _lines(domain)[1:]
    ids = [json.loads(line)["id"] for line in lines]
    if lines and ids != list(texts):
        missing = sorted(set(texts) ^ set(ids)) or ids
        raise TextError(
            f"The syntactic annotations of {domain} are of other documents than the built-in corpus has "
            f"({', '.join(missing[:3])}). Make them anew: python scripts/annotate_syntax.py --help says how."
        )
    return {id: trees_from(line, texts[id]) for id, line in zip(ids, lines, strict=True)}


def provenance(domain: str) -> dict[str, Any]:
    """How were the trees of a built-in domain made, and how good are they? Empty for a domain that is not annotated."""
    lines = _lines(domain)
    return json.loads(lines[0]) if lines else {}


@cache
def _lines(domain: str) -> tuple[str, ...]:
    file = files("innerworks.text") / "builtin" / f"{domain}.syntax.jsonl"
    return tuple(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else ()


def _tree(sentence: dict[str, Any], text: str) -> Tree:
    spans = tuple((start, start + length) for start, length in zip(sentence["starts"], sentence["lengths"], strict=True))
    return Tree(
        words=tuple(text[start:end] for start, end in spans),
        spans=spans,
        heads=tuple(sentence["heads"]),
        relations=tuple(sentence["relations"].split(" ")),
    )
