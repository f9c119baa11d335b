"""Words in an order: what a successor head would increment, as single tokens, and short lists of them.

1. Classes: days, months, their abbreviations, number words, ordinals, numbers, capital and small letters. Days and months are
   cyclic (Monday follows Sunday); of the others the last has no successor.
2. Each class is taken twice, with and without a space in front, and of it what the tokenizer knows as one token. A token
   counts if its successor is one token too. Classes with fewer than 4 such tokens are dropped, and named.
3. Lists of three in a row, in templates whose next token is the successor by the model's own tokenizer.
4. The order of a class is cut into stretches that go to the two halves in turn, and a list stays within its stretch with its
   answer: what discovery saw of a class, confirmation does not ask again. Classes of fewer than 8 (the days) are too short for
   that: there lists are dealt by their text, share items, and are named as doing so.

Gould et al. 2023, arXiv:2312.09230.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from innerworks.stats import Half, deal_halves
from innerworks.text.tasks.pairs import unknown

LEAST = 4  # single tokens of a class that have a successor
ROW = 3  # items of a list, before the one that is asked for
FOILS = 2  # members of a class beyond the list and its answer, at least: what the answer is compared with
STARTS = 4  # lists of one class, template and half, at most: evenly spaced starts
STRETCH = 2 * (ROW + 1)  # members in a row that go to one half, about: five lists' worth

_UNITS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
)

#: class -> (its members in order, is it cyclic?)
CLASSES: dict[str, tuple[tuple[str, ...], bool]] = {
    "days": (tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()), True),
    "days, short": (tuple("Mon Tue Wed Thu Fri Sat Sun".split()), True),
    "months": (
        tuple("January February March April May June July August September October November December".split()),
        True,
    ),
    "months, short": (tuple("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()), True),
    "number words": (tuple(f"{_UNITS} nineteen twenty".split()), False),
    "ordinals": (tuple(_ORDINALS.split()), False),
    "numbers": (tuple(str(number) for number in range(201)), False),
    "capital letters": (tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), False),
    "small letters": (tuple("abcdefghijklmnopqrstuvwxyz"), False),
}
#: a space in front of the items -> templates; what follows the text must be the fourth item as that variant's token
TEMPLATES = {" ": ("{0}, {1}, {2},", "After {0}, {1} and {2} comes"), "": ("{0},{1},{2},", "{0}\n{1}\n{2}\n")}


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """One class with or without a space in front: its single tokens in order, and which follows which.

    tokens: by place in the order; successor: for each token the index of its successor among `tokens`, -1 where there is none.
    spaces: the variants that these tokens stand for; both, where a space in front makes no difference to the tokenizer.
    """

    name: str
    spaces: tuple[str, ...]
    members: tuple[str, ...]
    tokens: tuple[int, ...]
    successor: tuple[int, ...]

    @property
    def title(self) -> str:
        """The class in words."""
        return self.name + (" after a space" if self.spaces == (" ",) else "")

    @property
    def counted(self) -> int:
        """Tokens that have a successor."""
        return sum(one >= 0 for one in self.successor)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A list: its tokens, and which member of its class comes next."""

    text: str
    run: str  # what is listed, however it is written: the unit
    tokens: tuple[int, ...]
    kind: int  # index of its class
    shown: tuple[int, ...]  # its members, among the class' tokens
    answer: int  # the next member
    half: Half


def classes(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[Ordered, ...], tuple[str, ...]]:
    """The classes of which a tokenizer has at least 4 single tokens with a successor, and the names of those dropped."""
    found: list[Ordered] = []
    for name, (words, cyclic) in CLASSES.items():
        variants = [_ordered(tokenizer, name, words, cyclic, space) for space in TEMPLATES]
        if len({one.tokens for one in variants}) == 1:
            variants = [replace(variants[0], spaces=tuple(TEMPLATES))]
        found += variants
    kept = tuple(one for one in found if one.counted >= LEAST)
    return kept, tuple(one.title for one in found if one.counted < LEAST)


def _ordered(tokenizer: PreTrainedTokenizerBase, name: str, words: tuple[str, ...], cyclic: bool, space: str) -> Ordered:
    single = {place: token for place, word in enumerate(words) if (token := _one_token(tokenizer, space + word)) is not None}
    index = {place: i for i, place in enumerate(single)}
    after = [(place + 1) % len(words) if cyclic else place + 1 for place in single]
    return Ordered(
        name=name,
        spaces=(space,),
        members=tuple(words[place] for place in single),
        tokens=tuple(single.values()),
        successor=tuple(index.get(place, -1) for place in after),
    )


def _one_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None


def rows(tokenizer: PreTrainedTokenizerBase, kept: tuple[Ordered, ...]) -> tuple[Row, ...]:
    """Lists of three members in a row, dealt to the two halves: no item of a class in both, where it is large enough."""
    found = [row for kind, one in enumerate(kept) for row in _rows(tokenizer, kind, one)]
    small = {kind for kind, one in enumerate(kept) if not _apart(one)}
    strata = {row.run: kept[row.kind].name for row in found}
    dealt = dict(zip(strata, deal_halves(list(strata), list(strata.values())), strict=True))
    return tuple(replace(row, half=dealt[row.run]) if row.kind in small else row for row in found)


def shared_items(kept: tuple[Ordered, ...], given: tuple[Row, ...]) -> tuple[str, ...]:
    """The classes of which both halves show or ask for the same item."""
    items: dict[tuple[int, Half], set[int]] = defaultdict(set)
    for row in given:
        items[row.kind, row.half] |= {*row.shown, row.answer}
    return tuple(one.title for kind, one in enumerate(kept) if items[kind, "discovery"] & items[kind, "confirmation"])


def _apart(one: Ordered) -> bool:
    """Are there enough members for lists without common items?"""
    return len(CLASSES[one.name][0]) >= 2 * (ROW + 1)


def _stretch(one: Ordered, member: int) -> int:
    """Which stretch of its class' order a member lies in: an even number of them, the even ones discovery's."""
    whole = CLASSES[one.name][0]
    stretches = 2 * max(1, len(whole) // (2 * STRETCH))
    return whole.index(one.members[member]) * stretches // len(whole)


def _rows(tokenizer: PreTrainedTokenizerBase, kind: int, one: Ordered) -> Iterator[Row]:
    if len(one.tokens) < ROW + 1 + FOILS:
        return
    starts = [run for first in range(len(one.tokens)) if (run := _run(one, first))]
    by_half: dict[Half, list[list[int]]] = {"discovery": [], "confirmation": []}
    for run in starts:
        stretches = {_stretch(one, member) for member in run}
        if not _apart(one):
            by_half["discovery"].append(run)  # until they are dealt
        elif len(stretches) == 1:
            by_half["confirmation" if stretches.pop() % 2 else "discovery"].append(run)
    chosen: list[tuple[list[int], Half]] = [
        (run, half) for half, runs in by_half.items() for run in _spaced(runs, STARTS if _apart(one) else 2 * STARTS)
    ]
    for space, template in [(before, template) for before in one.spaces for template in TEMPLATES[before]]:
        for items, half in chosen:
            words = [one.members[i] for i in items]
            text = template.format(*words)
            ids = tokenizer.encode(text)
            whole = tokenizer.encode(text + space + one.members[items[-1]])
            if whole == [*ids, one.tokens[items[-1]]] and not unknown(tokenizer, ids):
                run, shown = f"{one.name}: {' '.join(words)}", tuple(items[:-1])
                yield Row(text=text, run=run, tokens=tuple(ids), kind=kind, shown=shown, answer=items[-1], half=half)


def _spaced(runs: list[list[int]], most: int) -> list[list[int]]:
    """Evenly spaced ones, so many at most."""
    return [runs[i * len(runs) // most] for i in range(most)] if len(runs) > most else runs


def _run(one: Ordered, first: int) -> list[int]:
    """Four members in a row from this one on, or nothing."""
    items = [first]
    while len(items) <= ROW:
        if one.successor[items[-1]] < 0:
            return []
        items.append(one.successor[items[-1]])
    return items
