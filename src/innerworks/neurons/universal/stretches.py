"""Which tokens of two tokenizers are the same place in a text?

1. A *place* is a character after which a token ends in both; there stand the last token of either that ends so. Both models have
   then read exactly the same characters. With one tokenizer, every token is a place.
2. A document is cut at places into stretches that fit in the window of both; each model reads each stretch by itself.
3. The first token of what a model reads is left out: it is not like any other.
4. Every document gives at most the same number of places, and at least 8; documents are dealt to a discovery and a confirmation
   half within their domain.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from innerworks.errors import TextError, UsageError
from innerworks.model import Model
from innerworks.stats import CONSTANTS, Half, deal_halves
from innerworks.text import Corpus
from innerworks.text.openings import LEAST_TOKENS
from innerworks.text.reading import WINDOW, opening_tokens

Ends = Sequence[tuple[int, int]]  # of places, in order: (number of the token of A, of B) that ends there


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one model reads of a stretch, and where in it the places are."""

    tokens: tuple[int, ...]
    places: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of text as both models read it; place k of the one is place k of the other."""

    unit: int
    sides: tuple[Side, Side]

    @property
    def size(self) -> int:
        """How many places it has."""
        return len(self.sides[0].places)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """All stretches of one half, those of a unit together, and the stratum of each unit."""

    stretches: tuple[Stretch, ...]
    strata: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many places there are."""
        return sum(one.size for one in self.stretches)

    @property
    def unit_of_each_place(self) -> list[int]:
        """The unit of each place, in the order of stretches."""
        return [one.unit for one in self.stretches for _ in range(one.size)]


def texts_of(models: tuple[Model, Model], corpus: Corpus, *, tokens: int) -> dict[Half, Texts]:
    """Cut a corpus for two models: discovery and confirmation, of about so many places together.

    Raises UsageError for too few tokens, TextError where fewer than 12 documents are left in a half.
    """
    names = list(dict.fromkeys(document.unit for document in corpus.documents))
    most = tokens // len(names)
    if most < LEAST_TOKENS:
        raise UsageError(
            f"{tokens:,} tokens of {len(names)} documents are {most} of each, fewer than {LEAST_TOKENS}. "
            f"Read at least {LEAST_TOKENS * len(names):,}."
        )
    whole, strata, cut = defaultdict(str), {}, defaultdict(list)
    for document in corpus.documents:
        whole[document.unit] += document.text
        strata.setdefault(document.unit, document.domain)
        room = most - sum(one.size for one in cut[document.unit])
        cut[document.unit] += _up_to(room, _stretches(document.text, models))
    long_enough = [name for name in names if sum(one.size for one in cut[name]) >= LEAST_TOKENS]
    halves = deal_halves([whole[name] for name in long_enough], [strata[name] for name in long_enough])
    dealt: dict[Half, list[str]] = {"discovery": [], "confirmation": []}
    for name, half in zip(long_enough, halves, strict=True):
        dealt[half].append(name)
    if min(map(len, dealt.values())) < CONSTANTS.least_units:
        raise TextError(
            f"{corpus.name}: {len(long_enough)} documents have {LEAST_TOKENS} places where a token ends in both models, which "
            f"leaves {min(map(len, dealt.values()))} to confirm on; {CONSTANTS.least_units} in each half are the least on which "
            "anything can be decided."
        )
    return {half: _texts(members, strata, cut) for half, members in dealt.items()}


def _texts(members: Sequence[str], strata: dict[str, str], cut: dict[str, list[Stretch]]) -> Texts:
    stretches = [replace(one, unit=number) for number, name in enumerate(members) for one in cut[name]]
    return Texts(stretches=tuple(stretches), strata=tuple(strata[name] for name in members))


def _up_to(room: int, stretches: Iterator[Stretch]) -> Iterator[Stretch]:
    """As many places as there is room for."""
    for one in stretches:
        if room <= 0:
            return
        yield replace(one, sides=(_first(one.sides[0], room), _first(one.sides[1], room)))
        room -= one.size


def _first(side: Side, places: int) -> Side:
    kept = side.places[:places]
    return Side(tokens=side.tokens[: kept[-1] + 1], places=kept)


def _stretches(text: str, models: tuple[Model, Model]) -> Iterator[Stretch]:
    """The stretches of a text, of unit 0 as yet."""
    encoded = [_encoded(model.tokenizer, text) for model in models]
    openings = [opening_tokens(model.tokenizer) for model in models]
    rooms = [min(WINDOW, model.anatomy.max_positions or WINDOW) - len(o) for model, o in zip(models, openings, strict=True)]

    def side(which: int, start: int, ends: Ends) -> Side:
        opening, ids = openings[which], encoded[which][0]
        places = tuple(end[which] - start + len(opening) for end in ends)
        return Side(tokens=(*opening, *ids[start : ends[-1][which] + 1]), places=places)

    for starts, ends in cuts(shared_ends(encoded[0][1], encoded[1][1]), rooms):
        kept = [end for end in ends if all(end[i] - starts[i] + len(openings[i]) > 0 for i in (0, 1))]
        if kept:
            yield Stretch(unit=0, sides=(side(0, starts[0], kept), side(1, starts[1], kept)))


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    if not tokenizer.is_fast:
        raise TextError(
            f"{type(tokenizer).__name__} cannot say which characters its tokens cover (no offsets), so two models cannot be laid "
            "side by side. Use the fast tokenizer of this model."
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return encoded["input_ids"], encoded["offset_mapping"]


def shared_ends(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The places of a text, by the characters (start, end) that each token of either side covers.

    >>> shared_ends([(0, 3), (3, 7), (7, 9)], [(0, 7), (7, 8), (8, 9)])  # the| owl|et  the owl|e|t
    [(1, 0), (2, 2)]
    """
    ends = [{end: number for number, (start, end) in enumerate(side) if end > start} for side in (first, second)]
    return [(ends[0][end], ends[1][end]) for end in sorted(ends[0].keys() & ends[1].keys())]


def cuts(ends: Ends, rooms: Sequence[int]) -> Iterator[tuple[tuple[int, int], Ends]]:
    """Cut at places, as late as both windows allow: of each stretch, where it starts on both sides, and its places.

    What lies between two places that no window holds is left out.
    """
    starts: tuple[int, int] = (0, 0)
    held: list[tuple[int, int]] = []
    for end in ends:
        if held and not _fits(end, starts, rooms):
            yield starts, held
            starts, held = (held[-1][0] + 1, held[-1][1] + 1), []
        if _fits(end, starts, rooms):
            held.append(end)
        else:
            starts = (end[0] + 1, end[1] + 1)
    if held:
        yield starts, held


def _fits(end: tuple[int, int], starts: tuple[int, int], rooms: Sequence[int]) -> bool:
    return all(end[i] - starts[i] < rooms[i] for i in (0, 1))
