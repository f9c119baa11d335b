"""How text reaches a model: fixed windows, batched so that every document has others of its kind beside it.

1. Each document is cut into windows of at most `window` tokens, each opened as the tokenizer opens a text (its BOS, if any).
2. Units (documents, sequences) are dealt to a discovery and a confirmation half within their stratum.
3. A batch holds windows of one stratum and half. Its neighbours are what the pattern swap compares a document with.
4. Where the syntax of a document is known, each window carries the arcs among its own tokens (`syntax.py`).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from innerworks.errors import TextError
from innerworks.stats import CONSTANTS, Half, deal_halves
from innerworks.text.corpus import Corpus
from innerworks.text.pieces import kind_of_each_token, word_of_each_token
from innerworks.text.repeats import LENGTH, ordinary_tokens, random_repeats
from innerworks.text.syntax import Arc, token_arcs, trees_of
from innerworks.text.trees import Tree

WINDOW = 256  # tokens
SHORTEST = 32  # tokens: a last window with fewer is left out, unless it is the only one
BATCH = 8  # windows
SEQUENCES = 64  # generated sequences with a repeat


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What is counted: a document (with all its windows) or a generated sequence."""

    id: str
    stratum: str
    material: str  # text or random
    half: Half


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of tokens of one unit. `alike`: windows with the same number must not be compared with one another."""

    unit: int
    tokens: tuple[int, ...]
    words: tuple[int | None, ...]  # the word each token is a piece of
    kinds: tuple[str | None, ...]  # letter, digit or other, by the token's first visible character
    alike: int
    arcs: tuple[Arc, ...] = ()  # along syntactic relations, between its tokens; none where its syntax is not known


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """Windows of one stratum and half, padded on the right."""

    tokens: Int[Tensor, "batch seq"]
    mask: Bool[Tensor, "batch seq"]
    words: Int[Tensor, "batch seq"]  # the word of letters that each token is a piece of; -1 for none
    marks: Bool[Tensor, "batch seq"]  # punctuation and the like
    units: Int[Tensor, " batch"]
    alike: Int[Tensor, " batch"]
    material: str
    stratum: str
    half: Half
    arcs: tuple[tuple[Arc, ...], ...]  # of each row

    @property
    def size(self) -> int:
        """How many real tokens it holds."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> "TextBatch":
        """Move everything to a device but unit numbers, since sums are kept on the CPU."""
        moved = {name: getattr(self, name).to(device) for name in ("tokens", "mask", "words", "marks", "alike")}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Everything that is to be read: units and their windows, in a fixed order."""

    units: tuple[Unit, ...]
    windows: tuple[Window, ...]

    @property
    def tokens(self) -> int:
        """How many tokens there are in all."""
        return sum(len(window.tokens) for window in self.windows)

    def tokens_of(self, material: str) -> int:
        """How many tokens there are of one material."""
        return sum(len(window.tokens) for window in self.windows if self.units[window.unit].material == material)

    def batches(self, half: Half, *, size: int = BATCH) -> list[TextBatch]:
        """The batches of one half, always in the same order."""
        groups: dict[tuple[str, str], list[Window]] = defaultdict(list)
        for window in self.windows:
            unit = self.units[window.unit]
            if unit.half == half:
                groups[unit.material, unit.stratum].append(window)
        return [
            batch_of(windows, material, stratum, half)
            for (material, stratum), group in groups.items()
            for windows in _even_parts(group, size)
        ]


def batch_of(windows: Sequence[Window], material: str, stratum: str, half: Half) -> TextBatch:
    """Put windows into a batch, padded on the right."""
    longest = max(len(window.tokens) for window in windows)
    words = [[_letters(word, kind) for word, kind in zip(one.words, one.kinds, strict=True)] for one in windows]
    lengths = torch.tensor([len(window.tokens) for window in windows])
    return TextBatch(
        tokens=_padded([window.tokens for window in windows], longest, 0),
        mask=torch.arange(longest) < lengths[:, None],
        words=_padded(words, longest, -1),
        marks=_padded([[int(kind == "other") for kind in window.kinds] for window in windows], longest, 0).bool(),
        units=torch.tensor([window.unit for window in windows]),
        alike=torch.tensor([window.alike for window in windows]),
        material=material,
        stratum=stratum,
        half=half,
        arcs=tuple(tuple(arc for arc in one.arcs if arc.query < len(one.tokens)) for one in windows),  # some are cut short
    )


def _letters(word: int | None, kind: str | None) -> int:
    return word if word is not None and kind == "letter" else -1


def _padded(rows: Sequence[Sequence[int]], length: int, filler: int) -> Int[Tensor, "batch seq"]:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def read(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocab: int,
    max_positions: int | None,
    window: int = WINDOW,
    sequences: int = SEQUENCES,
    seed: int = 0,
) -> Reading:
    """Prepare a corpus and generated repeats for a model with this tokenizer and context."""
    opening = opening_tokens(tokenizer)
    window = min(window, max_positions or window)
    text_units, text_windows = _documents(corpus, tokenizer, opening, window)
    room = (max_positions or LENGTH + len(opening)) - len(opening)
    repeats = random_repeats(ordinary_tokens(tokenizer, vocab), sequences, seed=seed, longest=room)
    halves = deal_halves([str(repeat.tokens) for repeat in repeats], ["random"] * len(repeats))
    units, windows = list(text_units), list(text_windows)
    for i, repeat in enumerate(repeats):
        tokens = (*opening, *repeat.tokens)
        nothing = (None,) * len(tokens)
        windows.append(Window(unit=len(units), tokens=tokens, words=nothing, kinds=nothing, alike=repeat.gap))
        units.append(Unit(id=f"random/{i:02d}", stratum="random", material="random", half=halves[i]))
    return Reading(units=tuple(units), windows=tuple(windows))


def _documents(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, opening: tuple[int, ...], window: int
) -> tuple[list[Unit], list[Window]]:
    texts: dict[str, str] = defaultdict(str)
    strata: dict[str, str] = {}
    for document in corpus.documents:
        texts[document.unit] += document.text
        strata.setdefault(document.unit, document.domain)
    names = list(texts)
    halves = deal_halves([texts[name] for name in names], [strata[name] for name in names])
    least = min(halves.count("discovery"), halves.count("confirmation"))
    if least < CONSTANTS.least_units:
        raise TextError(
            f"{corpus.name} has {len(names)} documents, which leaves {least} to confirm on; {CONSTANTS.least_units} to "
            f"discover on and {CONSTANTS.least_units} to confirm on are the least on which anything can be decided. "
            "A .txt file holds several, separated by lines of %%."
        )
    units = [Unit(id=n, stratum=strata[n], material="text", half=h) for n, h in zip(names, halves, strict=True)]
    number = {name: i for i, name in enumerate(names)}
    by_rank: list[tuple[int, int, Window]] = []
    rank: dict[int, int] = defaultdict(int)  # windows of a unit so far: neighbours in a batch are of different units
    for document in corpus.documents:
        unit = number[document.unit]
        for one in _windows(document.text, trees_of(document), tokenizer, opening, window):
            by_rank.append((rank[unit], unit, replace(one, unit=unit, alike=unit)))
            rank[unit] += 1
    by_rank.sort(key=lambda entry: entry[:2])
    return units, [entry[2] for entry in by_rank]


def _windows(
    text: str, trees: Sequence[Tree], tokenizer: PreTrainedTokenizerBase, opening: tuple[int, ...], window: int
) -> Iterator[Window]:
    """The windows of a text, of unit 0 as yet."""
    if not tokenizer.is_fast:
        raise TextError(
            f"{type(tokenizer).__name__} cannot say which characters its tokens cover (no offsets). "
            "Use the fast tokenizer of this model: a folder with tokenizer.json, or AutoTokenizer with use_fast=True."
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, places = encoded["input_ids"], encoded["offset_mapping"]
    words, kinds = word_of_each_token(text, places), kind_of_each_token(text, places)
    room = window - len(opening)
    for start in range(0, len(ids), room):
        part = slice(start, start + room)
        if start and len(ids[part]) < SHORTEST:
            return
        before = [None] * len(opening)
        yield Window(
            unit=0,
            alike=0,
            tokens=(*opening, *ids[part]),
            words=(*before, *words[part]),
            kinds=(*before, *kinds[part]),
            arcs=token_arcs(trees, [*[(0, 0)] * len(opening), *places[part]]) if trees else (),
        )


def opening_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer itself puts before a text: its BOS, or nothing (Qwen, SmolLM2)."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    return tuple(full[: next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)])


def _even_parts(windows: list[Window], size: int) -> Iterator[list[Window]]:
    """Cut into as few parts of at most `size` as possible, as equal as possible: a lone last window would have no partner."""
    parts = -(-len(windows) // size)
    for i in range(parts):
        yield windows[i * len(windows) // parts : (i + 1) * len(windows) // parts]
