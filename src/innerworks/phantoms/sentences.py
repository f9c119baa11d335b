"""Sentences with a known syntax, in documents of two domains: the language in which syntactic and domain heads have a use.

1. Some words have a role: nouns of two classes (`one`, `many`), verbs, things; words of the `hill` domain; words common to both.
   All others fill up. A word with an ending that depends on it is followed by that ending, four times in five.
2. A sentence is a noun, none to four fillers, a verb and an ending that agrees with the noun; then fillers and, often, a thing.
   So the noun is at no fixed distance. Its tree: the noun is the verb's `nsubj`, the thing its `obj`, the ending its `aux`.
3. Among them stand common words, and in documents of the domain `hill` hill words, each with its ending. Documents of the other
   domain, `sea`, have other fillers in their place.

So agreement can be foretold only by who looks from the verb at its noun, the ending of a hill word only by who knows hill words;
and the latter matters in one domain.
"""

from dataclasses import dataclass

import numpy as np

from innerworks.phantoms.words import Vocabulary
from innerworks.text import Document
from innerworks.text.trees import ROOT, Tree

ROLES: tuple[str, ...] = ("one", "many", "verb", "thing", "hill", "common")
ENDED: tuple[str, ...] = ("one", "many", "hill", "common")  # roles with an ending of their own
EVERY, PER_ROLE = 12, 24  # one word in so many of the frequency list has a given role; how many have it at most
DOMAINS = ("hill", "sea")
ENDING, THING = 0.8, 0.7  # chances
MOST_FILLERS = (5, 3)  # from and below: between noun and verb, after the verb


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Which words have which role, which word ends which role, and the rest."""

    roles: dict[str, tuple[str, ...]]
    endings: dict[str, str]
    fillers: tuple[str, ...]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "Lexicon":
        """Deal roles along the frequency list; the rarest words are endings."""
        ranked = vocabulary.ranked[: -len(ENDED)]
        roles = {role: ranked[number::EVERY][:PER_ROLE] for number, role in enumerate(ROLES)}
        taken = {word for words in roles.values() for word in words}
        endings: dict[str, str] = dict(zip(ENDED, vocabulary.ranked[-len(ENDED) :], strict=True))
        return cls(roles=roles, endings=endings, fillers=tuple(word for word in ranked if word not in taken))


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word, what it stands for in the sentence, and which word it depends on."""

    text: str
    relation: str
    head: int


def sorts(vocabulary: Vocabulary) -> dict[int, str]:
    """The role of each token that has one."""
    return {vocabulary.id_of(word): role for role, words in Lexicon.of(vocabulary).roles.items() for word in words}


def ending_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Token of each role's ending."""
    return {role: vocabulary.id_of(word) for role, word in Lexicon.of(vocabulary).endings.items()}


def write_sentences(vocabulary: Vocabulary, n: int, *, words: int, rng: np.random.Generator) -> list[Document]:
    """Write n documents of about `words` words, of either domain in turn, with the trees of their sentences."""
    lexicon = Lexicon.of(vocabulary)
    return [_document(lexicon, f"{number:03d}", DOMAINS[number % len(DOMAINS)], words, rng) for number in range(n)]


def _document(lexicon: Lexicon, id: str, domain: str, words: int, rng: np.random.Generator) -> Document:
    text, trees, count = "", [], 0
    while count < words:
        sentence = _sentence(lexicon, domain, rng)
        spans = []
        for word in sentence:
            text += " " if text else ""
            spans.append((len(text), len(text) + len(word.text)))
            text += word.text
        text += "."
        count += len(sentence)
        trees.append(
            Tree(
                words=tuple(word.text for word in sentence),
                spans=tuple(spans),
                heads=tuple(word.head for word in sentence),
                relations=tuple(word.relation for word in sentence),
            )
        )
    return Document(id=id, text=text, domain=domain, trees=tuple(trees))


def _sentence(lexicon: Lexicon, domain: str, rng: np.random.Generator) -> list[Word]:
    number = str(rng.choice(["one", "many"]))
    before = _asides(lexicon, domain, rng)
    between = _fillers(lexicon, int(rng.integers(MOST_FILLERS[0])), rng)
    noun, verb = len(before), len(before) + 1 + len(between)
    sentence = [Word(text=word, relation=of, head=verb if at is None else at) for word, of, at in before]
    sentence += [Word(text=_pick(lexicon, number, rng), relation="nsubj", head=verb)]
    assert len(sentence) == noun + 1
    sentence += [Word(text=word, relation="discourse", head=verb) for word in between]
    sentence += [Word(text=_pick(lexicon, "verb", rng), relation="root", head=ROOT)]
    if rng.random() < ENDING:
        sentence += [Word(text=lexicon.endings[number], relation="aux", head=verb)]
    sentence += [
        Word(text=word, relation="discourse", head=verb) for word in _fillers(lexicon, int(rng.integers(MOST_FILLERS[1])), rng)
    ]
    if rng.random() < THING:
        sentence += [Word(text=_pick(lexicon, "thing", rng), relation="obj", head=verb)]
    return sentence


def _asides(lexicon: Lexicon, domain: str, rng: np.random.Generator) -> list[tuple[str, str, int | None]]:
    """What comes before the noun: a common word, and a hill word or a filler, by turns or not, each perhaps with its ending."""
    found: list[tuple[str, str, int | None]] = []
    for role in rng.permutation(["common", "hill" if domain == "hill" else "filler"]):
        if rng.random() < 0.5:
            continue
        if role == "filler":
            found.append((_fillers(lexicon, 1, rng)[0], "discourse", None))
            continue
        found.append((_pick(lexicon, role, rng), "discourse", None))
        if rng.random() < ENDING:
            found.append((lexicon.endings[role], "case", len(found) - 1))
    return found


def _fillers(lexicon: Lexicon, count: int, rng: np.random.Generator) -> list[str]:
    """Words without a role, the frequent ones more often."""
    chance = 1 / (np.arange(len(lexicon.fillers)) + 2.5)
    places = rng.choice(len(lexicon.fillers), size=count, replace=False, p=chance / chance.sum())
    return [lexicon.fillers[place] for place in places]


def _pick(lexicon: Lexicon, role: str, rng: np.random.Generator) -> str:
    return str(rng.choice(lexicon.roles[role]))
