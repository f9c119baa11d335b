"""What is read: documents, each with a domain, from the built-in corpus or a file.

The unit of every statistic is the document (or its `group`: chapters of one book are one). Documents that share a run of
20 words with an earlier one are left out, since copies are no independent evidence; how many is noted.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from innerworks.errors import TextError, UsageError, near_misses
from innerworks.text.conllu import read_conllu
from innerworks.text.trees import Tree, builtin_trees

DOMAINS = ("news", "fiction", "science", "dialogue", "history", "french", "german", "spanish", "python", "mathematics")
SEPARATOR = "%%"  # a line of its own between documents of a .txt file
SHARED_RUN = 20  # words
LONGEST_WORDS = 15  # letters per word on average; more means a script without spaces
SMALLEST_STRATUM = 6  # documents; domains with fewer are put together as `mixed`


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text. `group` names what it belongs to (a book, a thread); by default it stands for itself."""

    id: str
    text: str
    domain: str = "text"
    group: str | None = None
    trees: tuple[Tree, ...] = field(default=(), repr=False)  # its sentences, where their syntax is known

    @property
    def unit(self) -> str:
        """The unit of statistics that it counts under."""
        return self.id if self.group is None else f"group/{self.group}"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents to read, and how they came to be these."""

    name: str
    documents: tuple[Document, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, name: "str | Corpus") -> "Corpus":
        """Open a corpus by name.

        `builtin`: 10 domains x 16 documents of 150-250 tokens. `builtin:long`: 8 documents of 1,200 tokens and more.
        `file:PATH`: a .jsonl file (a JSON object with `text` per line, and if you like `id`, `domain`, `group`), a .txt
        file (documents separated by lines of `%%`), a folder of .txt files (one document each), or a .conllu treebank.

        The syntax of the English domains of `builtin` and of a treebank is known: see `syntax.py`.
        """
        if isinstance(name, Corpus):
            return name
        if name == "builtin":
            documents = [document for domain in DOMAINS for document in _builtin(domain)]
        elif name == "builtin:long":
            documents = _builtin("long")
        elif name.startswith("file:"):
            documents = _read(Path(name.removeprefix("file:")))
        else:
            raise UsageError(
                f"No corpus is called {name!r}. Give builtin, builtin:long or file:PATH."
                f"{near_misses(name, ('builtin', 'builtin:long', 'file:' + name))}"
            )
        return cls.of(name, documents)

    @classmethod
    def of(cls, name: str, documents: Iterable[Document]) -> "Corpus":
        """Make a corpus of documents: checked, repeats left out, small domains put together."""
        kept, notes = _without_repeats(_with_words(name, list(documents)))
        return cls(name=name, documents=tuple(_pooled(kept)), notes=tuple(notes))

    @property
    def digest(self) -> str:
        """SHA-256 over ids, domains, groups, texts and trees: what exactly was read."""
        content = [[d.id, d.domain, d.group, d.text, *[[t.spans, t.heads, t.relations] for t in d.trees]] for d in self.documents]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def sample(self, per_domain: int) -> "Corpus":
        """Keep at most so many documents per domain, chosen by the hash of their text."""
        by_domain: dict[str, list[Document]] = defaultdict(list)
        for document in sorted(self.documents, key=lambda d: hashlib.sha256(d.text.encode()).hexdigest()):
            by_domain[document.domain].append(document)
        kept = {document.id for documents in by_domain.values() for document in documents[:per_domain]}
        if len(kept) == len(self.documents):
            return self
        note = f"{len(kept)} of {len(self.documents)} documents: at most {per_domain} per domain"
        documents = tuple(_pooled([document for document in self.documents if document.id in kept]))
        return replace(self, documents=documents, notes=(*self.notes, note))


def _builtin(domain: str) -> list[Document]:
    text = (files("innerworks.text") / "builtin" / f"{domain}.txt").read_text(encoding="utf-8")
    texts = {f"{domain}/{i:02d}": one for i, one in enumerate(_split(text))}
    trees = builtin_trees(domain, texts)
    return [Document(id=id, text=one, domain=domain, trees=trees.get(id, ())) for id, one in texts.items()]


def _split(text: str) -> list[str]:
    return [one.strip("\n") for one in text.replace("\r\n", "\n").split(f"\n{SEPARATOR}\n")]


def _read(path: Path) -> list[Document]:
    try:
        if path.is_dir():
            return [Document(id=one.stem, text=_utf8(one)) for one in sorted(path.glob("*.txt"))]
        if path.suffix == ".jsonl":
            return list(_json_lines(path))
        if path.suffix == ".txt":
            return [Document(id=f"{path.stem}/{i}", text=one) for i, one in enumerate(_split(_utf8(path)))]
        if path.suffix == ".conllu":
            return [Document(id=id, text=text, trees=trees) for id, text, trees in read_conllu(path, _utf8(path))]
    except FileNotFoundError as error:
        raise TextError(f"There is no file {path}.") from error
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}.") from error
    raise TextError(f"{path}: what can be read is .jsonl, .txt, or a folder of .txt files; and .conllu, for gold syntax.")


def _utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error


def _json_lines(path: Path) -> Iterator[Document]:
    for number, line in enumerate(_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise TextError(f'{path}, line {number}: not a JSON object with a string "text".')
        group = None if row.get("group") is None else str(row["group"])
        yield Document(id=str(row.get("id", number)), text=row["text"], domain=str(row.get("domain", "text")), group=group)


def _with_words(name: str, documents: list[Document]) -> list[Document]:
    wordless = [document.id for document in documents if not any(letter.isalpha() for letter in document.text)]
    if wordless or not documents:
        what = (
            f"{len(wordless)} of {len(documents)} documents hold no word ({', '.join(wordless[:3])})"
            if documents
            else "there is no document"
        )
        raise TextError(f"Nothing to read in {name}: {what}.")
    twice = [id for id, count in Counter(document.id for document in documents).items() if count > 1]
    if twice:
        raise TextError(f"{name}: {len(twice)} ids are used more than once ({', '.join(twice[:3])}). Ids must be unique.")
    return documents


def _without_repeats(documents: list[Document]) -> tuple[list[Document], list[str]]:
    """Leave out documents that share a run of 20 words with an earlier unit."""
    owner: dict[int, str] = {}
    kept, repeats = [], []
    for document in documents:
        words, run = document.text.split(), SHARED_RUN
        if len(document.text) > LONGEST_WORDS * len(words):  # a script without spaces: twice as many letters instead
            words, run = list("".join(words)), 2 * SHARED_RUN
        runs = {hash(tuple(words[i : i + run])) for i in range(max(1, len(words) - run + 1))}
        if any(owner.get(run, document.unit) != document.unit for run in runs):
            repeats.append(document.id)
            continue
        owner.update(dict.fromkeys(runs, document.unit))
        kept.append(document)
    note = (
        f"{len(repeats)} documents left out, which share {SHARED_RUN} words running with an earlier one: {', '.join(repeats[:5])}"
    )
    return kept, [note] if repeats else []


def _pooled(documents: list[Document]) -> list[Document]:
    """Put domains with too few units together, so that each stratum has partners in both halves."""
    units: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        units[document.domain].add(document.unit)
    small = {domain for domain, members in units.items() if len(members) < SMALLEST_STRATUM}
    return [replace(d, domain="mixed") if d.domain in small else d for d in documents]
