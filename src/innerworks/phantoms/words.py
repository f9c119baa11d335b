"""A small made-up language: its vocabulary, a byte-level tokenizer that reads it, and documents written in it.

What you can learn here: how a byte-pair tokenizer is put together by hand, and which properties of text the planted
heads live on: words that come back, punctuation, common first letters, words of several pieces, very frequent ones.

1. Syllables are a consonant and a vowel; words of the vocabulary are one or two syllables with a space before them.
2. Merges build syllables from letters, then words from syllables, so that each word is one token, as in GPT-2: `Ġtoku`.
3. A longer word falls apart into such a word and a bare syllable (`Ġtoku` `ba`): the multi-piece words.
4. Documents draw words by a Zipf law. Each has a few phrases of rarer words that return: what an induction head
   predicts.
5. A word that the text had before may be followed by a particle, as some languages mark what is known already: what a
   duplicate-token head is good for.

A `Language` says what of this there is, and may have two things more: the particle follows words of several pieces instead (what
a joiner is good for), and short lists count up: `3, 4, 5` (what a successor head is good for).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPACE = "Ġ"  # how byte-level tokenizers print the space that begins a word
VOWELS = "aeiou"
CONSONANTS = "bdkmt"  # few, so that many words share their first letter
PUNCTUATION = ",.?!;:%*"
SPECIAL = ("<unk>", "<eos>")  # ordinary tokens to the model; the tokenizer never adds them by itself
TWO_SYLLABLES = 420  # words of two syllables, of the 625 possible ones

COMMA, PHRASE, PARTICLE = 0.08, 0.08, 0.3  # chances after a word: a comma, a phrase, the particle (after a known word)
SUFFIX, RARE_SUFFIX = 0.03, 0.3  # chances that a word, or one of a phrase, gets another syllable
ZIPF_EXPONENT, ZIPF_SHIFT = 1.05, 1.5  # frequency of the word of rank r is proportional to (r + shift) ** -exponent
PHRASES, RARE_FROM = 4, 60  # phrases of each document, made of words from this rank on
JOINED = 0.7  # chance of the particle after a word of several pieces
LISTED, ITEMS = 0.05, (4, 8)  # chance of a list, and how many items it has, from and below
#: what lists count: tokens of their own, which `heads.circuits.ordinals` knows as classes
ORDERED = (tuple(str(number) for number in range(11)), tuple("ABCDEFGHIJK"), tuple("abcdefghijk"))


@dataclass(frozen=True, kw_only=True)
class Language:
    """What a phantom's language has.

    particle: after what the particle comes (`known`: a word that the text had before; `joined`: a word of several pieces);
    suffix: chance that a word, or one of a phrase, gets another syllable, and again; lists: does it count?
    """

    particle: Literal["known", "joined"] = "known"
    suffix: tuple[float, float] = (SUFFIX, RARE_SUFFIX)
    longest: int = 1  # syllables that a word may get
    lists: bool = False


PLAIN = Language()


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Tokens in the order of their ids, and the words by frequency.

    tokens: all tokens as the tokenizer prints them; merges: byte-pair merges in order of priority;
    ranked: the words without their space, the most frequent first; particle: the word that marks others; syllables: what may
    be added to a word; language: what is done with them.
    """

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    ranked: tuple[str, ...]
    particle: str
    syllables: tuple[str, ...]
    language: Language = PLAIN

    @property
    def particle_id(self) -> int:
        """Token of the particle."""
        return self.id_of(self.particle)

    def id_of(self, word: str) -> int:
        """Token of a word that is one."""
        return self.tokens.index(SPACE + word)

    @cached_property
    def words(self) -> frozenset[str]:
        """The words that are one token."""
        return frozenset(self.ranked)

    @property
    def ordered(self) -> tuple[tuple[int, ...], ...]:
        """Tokens of the classes that lists count, in order; none where there are no lists."""
        return tuple(tuple(self.id_of(item) for item in one) for one in ORDERED) if self.language.lists else ()

    @property
    def end_id(self) -> int:
        """Token that may end a text."""
        return self.tokens.index(SPECIAL[1])

    def initial(self, token: int) -> str:
        """First visible character of a token: a letter, a punctuation mark, or `<` and nothing for special ones."""
        return self.tokens[token].removeprefix(SPACE)[:1]


def make_vocabulary(rng: np.random.Generator, language: Language = PLAIN) -> Vocabulary:
    """Draw which two-syllable words exist, and how frequent each word is."""
    syllables = tuple(c + v for c, v in product(CONSONANTS, VOWELS))
    possible = list(product(syllables, syllables))
    chosen = [possible[i] for i in np.sort(rng.choice(len(possible), size=TWO_SYLLABLES, replace=False))]
    merges = [(s[0], s[1]) for s in syllables]
    merges += [(SPACE, s) for s in syllables]
    merges += [(SPACE + first, second) for first, second in chosen]
    words = [*syllables, *(first + second for first, second in chosen)]
    listed = ORDERED if language.lists else ()
    merges += _spelled([item for one in listed for item in one])
    letters = dict.fromkeys([*CONSONANTS, *VOWELS, *(letter for one in listed for item in one for letter in item)])
    tokens = [*SPECIAL, *PUNCTUATION, SPACE, *letters, *(a + b for a, b in merges)]
    particle = words.pop(int(rng.integers(len(syllables))))
    ranked = tuple(words[i] for i in rng.permutation(len(words)))
    parts = {"tokens": tuple(tokens), "merges": tuple(merges), "ranked": ranked, "syllables": syllables}
    return Vocabulary(**parts, particle=particle, language=language)


def _spelled(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merges that make one token of each word and its space, letter by letter."""
    steps = [(SPACE + word[:i], word[i]) for word in words for i in range(len(word))]
    return list(dict.fromkeys(steps))


def make_tokenizer(vocabulary: Vocabulary) -> PreTrainedTokenizerFast:
    """Assemble the tokenizer in memory: merges over byte-level text, with offsets, and nothing added at either end."""
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=list(vocabulary.merges), unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    unknown, end = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, eos_token=end, pad_token=end)


def write_documents(vocabulary: Vocabulary, n: int, *, words: int, rng: np.random.Generator) -> list[str]:
    """Write n documents of about `words` words (punctuation comes on top)."""
    return [_document(vocabulary, words, rng) for _ in range(n)]


def count_tokens(tokenizer: PreTrainedTokenizerFast, documents: Sequence[str]) -> NDArray[np.int64]:
    """Count each token of the vocabulary in the documents."""
    ids = [token for encoding in tokenizer(list(documents))["input_ids"] for token in encoding]
    return np.bincount(ids, minlength=len(tokenizer))


def _document(vocabulary: Vocabulary, words: int, rng: np.random.Generator) -> str:
    """One document: the words that `_stream` yields, cut into sentences with commas in them."""
    text: list[str] = []
    source = _stream(vocabulary, rng)
    left = int(rng.integers(6, 15))  # words left in this sentence
    while len(text) < words:
        text += next(source)
        left -= 1
        if left == 0:
            text[-1] += str(rng.choice(list(".?!"), p=[0.8, 0.1, 0.1]))
            left = int(rng.integers(6, 15))
        elif rng.random() < COMMA:
            text[-1] += str(rng.choice(list(",;:%*"), p=[0.7, 0.1, 0.1, 0.05, 0.05]))
    return " ".join(text).rstrip(PUNCTUATION) + "."


def _stream(vocabulary: Vocabulary, rng: np.random.Generator) -> Iterator[list[str]]:
    """Yield words and phrases, each perhaps with a particle if its last word is known; no word follows itself."""
    chance = (np.arange(len(vocabulary.ranked)) + 1 + ZIPF_SHIFT) ** -ZIPF_EXPONENT
    cumulative = np.cumsum(chance) / chance.sum()
    phrases = [_phrase(vocabulary, rng) for _ in range(PHRASES)]
    chance_of_particle = PARTICLE if vocabulary.language.particle == "known" else JOINED
    known, last = set[str](), ""
    while True:
        if rng.random() < PHRASE:
            new = phrases[rng.integers(PHRASES)]
        else:
            word = vocabulary.ranked[int(np.searchsorted(cumulative[:-1], rng.random()))]
            new = [word + _suffix(vocabulary, vocabulary.language.suffix[0], rng)]
        if new[0] == last:
            continue
        if vocabulary.language.lists and rng.random() < LISTED:
            yield _list(rng)
        marked = _calls_for_particle(vocabulary, new[-1], known) and rng.random() < chance_of_particle
        known.update(new)
        last = new[-1]
        yield [*new, vocabulary.particle] if marked else list(new)


def _phrase(vocabulary: Vocabulary, rng: np.random.Generator) -> list[str]:
    """Two to four rarer words that keep together, some with a syllable added."""
    picks = rng.choice(np.arange(RARE_FROM, len(vocabulary.ranked)), size=int(rng.integers(2, 5)), replace=False)
    return [vocabulary.ranked[i] + _suffix(vocabulary, vocabulary.language.suffix[1], rng) for i in picks]


def _suffix(vocabulary: Vocabulary, chance: float, rng: np.random.Generator) -> str:
    """With some chance a syllable to add to a word, and with the same chance another, up to the language's longest."""
    added = ""
    while len(added) < 2 * vocabulary.language.longest and rng.random() < chance:
        added += str(rng.choice(vocabulary.syllables))
    return added


def _calls_for_particle(vocabulary: Vocabulary, word: str, known: set[str]) -> bool:
    """May the particle follow?"""
    return word in known if vocabulary.language.particle == "known" else word not in vocabulary.words


def _list(rng: np.random.Generator) -> list[str]:
    """A few members of one class in their order, with commas between them."""
    one = ORDERED[rng.integers(len(ORDERED))]
    items = int(rng.integers(*ITEMS))
    start = int(rng.integers(len(one) - items + 1))
    return [*(f"{item}," for item in one[start : start + items - 1]), one[start + items - 1]]
