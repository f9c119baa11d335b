"""What is read: documents are cut into windows, windows are dealt to shards, and a shard's windows run in batches.

1. A document's tokens are cut into windows one after the other, each opened as the tokenizer opens a text; what is repeated for
   that is not kept. With positions="last" there is one window per document, and only its last token is kept.
2. Windows are dealt, in order, to shards of about as many rows.
3. The windows of a shard go into batches of similar length.

All of it follows from the tokens and the recipe alone, so that a collection that was stopped can find its place again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from innerworks.model.collect.recipe import Recipe

READ_PER_ROW = 32  # a shard is closed where so many tokens were read per row it may hold (positions="last")


@dataclass(frozen=True, kw_only=True)
class Window:
    """What the model sees at once. Row i is at `first + i` in the document; those in `kept` are stored."""

    document: int
    number: int  # of the windows of its document
    first: int
    tokens: Sequence[int]
    kept: range


@dataclass(kw_only=True)
class Shard:
    """Which windows a shard holds: `windows` of them, from number `begin` of `document` on."""

    number: int
    document: int
    begin: int
    windows: int = 0
    rows: int = 0
    tokens: int = 0

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return f"shard-{self.number:05d}.safetensors"


def windows_of(ids: Sequence[int], document: int, recipe: Recipe) -> list[Window]:
    """The windows that the tokens of a document are cut into; those of which nothing is kept are left out."""
    size, opening, least = len(ids), recipe.opening, int(recipe.skip_first)
    room = recipe.window - len(opening)
    if recipe.positions == "last":
        tokens = ids if size <= recipe.window else [*opening, *ids[-room:]]
        parts = [(size - len(tokens), tokens, len(tokens) - 1)]
    else:
        parts = [(0, ids[: recipe.window], 0)]
        parts += [
            (start - len(opening), [*opening, *ids[start : start + room]], len(opening))
            for start in range(recipe.window, size, room)
        ]
    cut = [(first, tokens, range(max(own, least), len(tokens))) for first, tokens, own in parts]
    whole = [one for one in cut if one[2]]
    return [Window(document=document, number=i, first=f, tokens=t, kept=k) for i, (f, t, k) in enumerate(whole)]


def shards_of(windows: Iterable[Window], recipe: Recipe) -> list[Shard]:
    """The shards that windows are dealt to, in order."""
    shards: list[Shard] = []
    for window in windows:
        last = shards[-1] if shards else None
        if (
            last is None
            or last.rows + len(window.kept) > recipe.shard_tokens
            or last.tokens + len(window.tokens) > READ_PER_ROW * max(recipe.shard_tokens, recipe.window)
        ):
            last = Shard(number=len(shards), document=window.document, begin=window.number)
            shards.append(last)
        last.windows += 1
        last.rows += len(window.kept)
        last.tokens += len(window.tokens)
    return shards


def batches_of(windows: Sequence[Window], limit: int) -> Iterator[list[tuple[int, Window]]]:
    """Windows of similar length, each with its first row in the shard; always the same for the same windows."""
    rows = accumulate((len(window.kept) for window in windows), initial=0)
    queue = sorted(zip(rows, windows, strict=False), key=lambda one: -len(one[1].tokens))
    start = 0
    while start < len(queue):
        count = max(1, limit // len(queue[start][1].tokens))
        yield queue[start : start + count]
        start += count
