"""Gold trees: a treebank in CoNLL-U (universaldependencies.org/format), read as documents with their text rebuilt.

1. Sentences are blocks of ten-column lines; `# newdoc` begins a document. A file without it is cut into documents of about
   200 words.
2. The text of a sentence is its `# text` comment, or its forms, joined as `SpaceAfter=No` says; sentences follow each other
   with a blank, paragraphs (`# newpar`) with an empty line.
3. A token of several words (`6-7 didn't`) is shared out among them where their forms spell it; else (French `au` = `à le`)
   each of them covers all of it. Empty nodes (`8.1`) are left out.

Columns other than form, head, relation and `SpaceAfter` are not read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from innerworks.errors import TextError
from innerworks.text.trees import ROOT, Tree, fault_of

COLUMNS = 10
BLOCK = 200  # words in a document, where the file does not say


@dataclass
class _Token:
    """A stretch of the surface, and the words (numbered from 0) it stands for."""

    form: str
    words: range
    blank_after: bool


@dataclass
class Sentence:
    """One sentence as it stands in the file."""

    line: int  # of its first word
    document: str | None = None  # the id of the document that it begins
    new_document: bool = False
    new_paragraph: bool = False
    text: str | None = None
    tokens: list[_Token] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)  # universal parts of speech
    heads: list[int] = field(default_factory=list)
    relations: list[str] = field(default_factory=list)

    @property
    def blank_after(self) -> bool:
        """Does white space follow it?"""
        return self.tokens[-1].blank_after


def read_conllu(path: Path, content: str) -> list[tuple[str, str, tuple[Tree, ...]]]:
    """The documents of a file: id, text and trees."""
    documents = []
    for number, block in enumerate(_blocks(list(sentences(path, content)))):
        text, trees = rebuilt(path, block)
        documents.append((block[0].document or f"{path.stem}/{number}", text, trees))
    return documents


def rebuilt(path: Path, block: list[Sentence]) -> tuple[str, tuple[Tree, ...]]:
    """The text of sentences in a row, and their trees."""
    text, trees = "", []
    for i, sentence in enumerate(block):
        if i:
            text += "\n\n" if sentence.new_paragraph else " " if block[i - 1].blank_after else ""
        surface, spans = _surface(path, sentence, at=len(text))
        text += surface
        trees.append(
            Tree(
                words=tuple(sentence.words),
                spans=tuple(spans),
                heads=tuple(sentence.heads),
                relations=tuple(sentence.relations),
            )
        )
    return text, tuple(trees)


def sentences(path: Path, content: str) -> Iterator[Sentence]:
    """The sentences of a file, each a checked tree."""
    sentence = Sentence(line=0)
    for number, line in enumerate([*content.split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if line.startswith("#"):
            _comment(sentence, line)
        elif line.strip():
            sentence.line = sentence.line or number
            _row(path, sentence, number, line.split("\t"))
        elif sentence.line:
            if fault := _fault(sentence):
                raise _malformed(path, sentence.line, f"the sentence that begins here is no tree: {fault}")
            yield sentence
            sentence = Sentence(line=0)


def _comment(sentence: Sentence, line: str) -> None:
    key, _, value = line.removeprefix("#").partition("=")
    key, value = key.strip(), value.strip()
    if key.split(" ")[0] == "newdoc":
        sentence.new_document, sentence.document = True, value or None
    elif key.split(" ")[0] == "newpar":
        sentence.new_paragraph = True
    elif key == "text":
        sentence.text = value


def _row(path: Path, sentence: Sentence, number: int, columns: list[str]) -> None:
    if len(columns) != COLUMNS:
        raise _malformed(path, number, f"{len(columns)} columns, where {COLUMNS} are separated by tabs")
    id, form, head, relation = columns[0], columns[1], columns[6], columns[7]
    blank_after = "SpaceAfter=No" not in columns[9].split("|")
    if "." in id:  # an empty node
        return
    if "-" in id:
        sentence.tokens.append(_Token(form, _range(path, number, id, len(sentence.words)), blank_after))
        return
    if id != str(len(sentence.words) + 1):
        raise _malformed(path, number, f"the word is numbered {id!r}, where {len(sentence.words) + 1} is due")
    if not head.isdecimal() or relation in ("", "_"):
        raise _malformed(path, number, f"word {id} ({form!r}) has no head or relation: {head!r}, {relation!r}")
    place = len(sentence.words)
    if not any(place in token.words for token in sentence.tokens[-1:]):
        sentence.tokens.append(_Token(form, range(place, place + 1), blank_after))
    sentence.words.append(form)
    sentence.tags.append(columns[3])
    sentence.heads.append(int(head) - 1 if head != "0" else ROOT)
    sentence.relations.append(relation)


def _range(path: Path, number: int, id: str, due: int) -> range:
    first, _, last = id.partition("-")
    if not (first.isdecimal() and last.isdecimal()) or int(first) != due + 1 or int(last) < int(first):
        raise _malformed(path, number, f"the words {id!r} cannot follow word {due}")
    return range(due, int(last))


def _fault(sentence: Sentence) -> str | None:
    if not sentence.words or sentence.tokens[-1].words.stop > len(sentence.words):
        return "words are missing at its end"
    return fault_of(sentence.heads)


def _surface(path: Path, sentence: Sentence, *, at: int) -> tuple[str, list[tuple[int, int]]]:
    """The text of a sentence, and the characters of each word, counted from `at`."""
    text = sentence.text
    if text is None:
        text = "".join(token.form + " " * token.blank_after for token in sentence.tokens).rstrip()
    spans: list[tuple[int, int]] = []
    end = 0
    for token in sentence.tokens:
        start = end + len(text[end:]) - len(text[end:].lstrip())
        end = start + len(token.form)
        if text[start:end] != token.form:
            raise _malformed(path, sentence.line, f'{token.form!r} does not come next in "# text": {text[start : start + 20]!r}')
        spans += _shared_out(token, [sentence.words[i] for i in token.words], at + start)
    return text, spans


def _shared_out(token: _Token, words: list[str], start: int) -> list[tuple[int, int]]:
    if "".join(words).casefold() != token.form.casefold():
        return [(start, start + len(token.form))] * len(words)
    ends = [start + sum(map(len, words[: i + 1])) for i in range(len(words))]
    return list(zip([start, *ends[:-1]], ends, strict=True))


def _blocks(found: list[Sentence]) -> Iterator[list[Sentence]]:
    """Cut where a document begins; in a file that never says so, after every 200 words."""
    told = any(sentence.new_document for sentence in found)
    block: list[Sentence] = []
    for sentence in found:
        if block and (sentence.new_document if told else sum(len(one.words) for one in block) >= BLOCK):
            yield block
            block = []
        block.append(sentence)
    if block:
        yield block


def _malformed(path: Path, line: int, what: str) -> TextError:
    return TextError(f"{path}, line {line}: {what}. A .conllu file holds whole trees, as Universal Dependencies has them.")
