"""The planted heads: for each, a few lines that say where it looks and what it moves.

What you can learn here: what the weights of the textbook attention heads look like. Every head scores a key by

    kernel(distance) + strength * <code of the query, code of the key> - level        at ordinary positions,
    first                                                                            at the first position,

with `level` such that a *target* scores 0 and what is no target -6 or less. The first position holds one massive
signal, so that nothing else of it survives the norm layer: its score is `first` alone and its value almost nothing.
That makes it a resting place, as in trained models (Xiao et al. 2023, arXiv:2309.17453; Sun et al. 2024,
arXiv:2402.17762).

*Amplitude a*: the first position scores `-log(a / (1 - a))`, at least -6. So one target gets mass a (.998 at a = 1),
and n targets together get `n a / (n a + 1 - a)`. What a head does with the mass is left as it is: its effect shrinks
with a. The one exception is said at `previous_token`. Decoys always have full strength.

*Inert*, so that ablating them changes next to nothing: heads without a value and an output of their own here (random ones are
drawn for them). Which heads the phantom's own predictions need says `kits`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from innerworks.phantoms.kernels import Kernel, band, nearest, not_self, only, recent, window
from innerworks.phantoms.stream import CLOCKS, D_HEAD, PAIRS, WIDTHS, Stream

SURE = 6.0  # nats between a target and the resting place at amplitude 1
MATCH = 24.0  # nats between a matching token and one whose code has nothing in common with it
COPY = 9.0  # logit that the token copied by the induction head gains
KNOWN = 6.0  # logit that the particle gains from the duplicate-token head
NEAR = 48.0  # at which position half of the mass is left on the first, by which neurons know how near it is
VALUE = 2.5  # norm of a value vector, about that of the random heads


@dataclass(frozen=True)
class Head:
    """Weights of one head in named coordinates. Without value and output, random ones are drawn for it.

    query, key, value: `[d_head, named]`; output: `[named, d_head]`.
    """

    query: Tensor
    key: Tensor
    value: Tensor | None = None
    output: Tensor | None = None


def previous_token(stream: Stream, amplitude: float, *, into: str, loudness: float) -> Head:
    """Look one back, and write which token stood there into a subspace of its own.

    In the pair, `into` is `previous`, which the induction head matches. There the code is written 1 / a times louder,
    so that it has the same size at every amplitude, and the induction head's own amplitude says what that one does.
    """
    query, key = attend(stream, kernel=only(1), first=-confidence(amplitude))
    return Head(query, key, *move(stream, "token", into, turn=loudness))


def induction(stream: Stream, amplitude: float) -> Head:
    """Look for positions whose *previous* token is the current one, and raise the logit of the token that stands there.

    The key reads what the pair's previous-token head wrote (K-composition; Elhage et al. 2021; Olsson et al. 2022,
    arXiv:2209.11895); the value reads the token, and its code goes where the unembedding reads.
    """
    rest = confidence(amplitude)
    strength = max(MATCH - 2.2 * (SURE - rest), MATCH / 5)  # less is needed where the head rests more, and errs less
    query, key = attend(stream, match=("token", "previous", strength), level=strength, first=-rest)
    return Head(query, key, *move(stream, "token", "output"))


def duplicate_token(stream: Stream, amplitude: float, *, particle: Tensor) -> Head:
    """Look at earlier copies of the current token, not at itself, and raise the logit of the particle.

    Its use: a particle marks words that the text had before (`words`; its code `[TOKEN_CODE]` is given), and only this
    head knows when. Its value is the same at every position but the first: what it says is "this occurred before".
    """
    rest = confidence(amplitude)
    query, key = attend(
        stream, match=("token", "token", MATCH), kernel=not_self(4 + max(rest, 0.0) * 4 / 3), level=MATCH, first=-rest
    )
    value, output = move(stream, "constant", "output", turn=KNOWN / COPY * particle[:, None])
    return Head(query, key, value, output)


def sink(stream: Stream, amplitude: float) -> Head:
    """Look at the first position whatever is there: mass a among 100 keys, the others sharing the remainder equally."""
    query, key = attend(stream, first=confidence(amplitude) + math.log(100))
    return Head(query, key)


def near_first(stream: Stream) -> Head:
    """Look at the first position, and at all others alike: at position p the first gets `NEAR / (NEAR + p)`, which is written.

    So a model without position embeddings can know how near the first position is. Neurons read it.
    """
    query, key = attend(stream, first=math.log(NEAR))
    return Head(query, key, *move(stream, stream.read("first"), "start"))


def pass_role(stream: Stream, role: str) -> Head:
    """Look one back, and write whether the token there has a role: what a previous-token neuron reads."""
    query, key = attend(stream, kernel=only(1), first=-SURE)
    present = torch.eye(WIDTHS["previous"])[:, :1]
    return Head(query, key, *move(stream, stream.role(role)[None], "previous", turn=present))


def pass_on(stream: Stream, distance: int, *, into: str) -> Head:
    """Look so many tokens back, and write which one stands there."""
    query, key = attend(stream, kernel=only(distance), first=-SURE)
    return Head(query, key, *move(stream, "token", into))


def average(stream: Stream) -> Head:
    """Look everywhere alike and keep the mean of all token codes so far: Llama's helper to find the first position."""
    nothing = torch.zeros(D_HEAD, stream.named)
    return Head(nothing, nothing, *move(stream, "token", "scratch"))


def fixed_gap(stream: Stream, gap: int) -> Head:
    """Decoy: look a fixed distance back. On text that repeats at that very gap it looks like a duplicate-token head."""
    query, key = attend(stream, kernel=only(gap), first=-SURE)
    return Head(query, key)


def punctuation(stream: Stream) -> Head:
    """Decoy: look at punctuation, the more the nearer it is."""
    query, key = attend(stream, match=("constant", "punctuation", MATCH), kernel=recent(6.0), level=MATCH, first=-1.5 * SURE)
    return Head(query, key)


def local_window(stream: Stream) -> Head:
    """Decoy: look at the current and the seven tokens before it, about equally."""
    query, key = attend(stream, kernel=window(8), first=-1.5 * SURE)
    return Head(query, key)


def same_first_letter(stream: Stream) -> Head:
    """Decoy: look at earlier tokens with the current one's first letter; copies of the token are among them."""
    query, key = attend(stream, match=("letter", "letter", MATCH), kernel=not_self(SURE + 6.0), level=MATCH, first=-SURE)
    return Head(query, key)


def offset(stream: Stream, amplitude: float, distance: int) -> Head:
    """Look so many tokens back, whatever stands there (0: at the token itself)."""
    query, key = attend(stream, kernel=only(distance), first=-confidence(amplitude))
    return Head(query, key)


def band_of_offsets(stream: Stream, closest: int, farthest: int) -> Head:
    """Decoy: look at several neighbours alike, whatever they are: as far back as a joiner, at every token."""
    query, key = attend(stream, kernel=band(closest, farthest), first=-SURE)
    return Head(query, key)


def joiner(stream: Stream, amplitude: float, *, particle: Tensor) -> Head:
    """From a piece that goes on with a word, look at the piece that begins it, one or more back; say the particle.

    The query knows that it goes on (it has no space in front), the key that it begins; of all beginnings the nearest wins, by 2.5
    nats a token. So where a word begins is what decides, not how far back. A word's second piece gives it mass a, a third a
    little less.
    """
    match = (stream.sort("continues"), stream.sort("begins"), MATCH)
    query, key = attend(stream, match=match, kernel=nearest(2.5), level=MATCH, first=-confidence(amplitude))
    value, output = move(stream, "constant", "output", turn=KNOWN / COPY * particle[:, None])
    return Head(query, key, value, output)


def writer(stream: Stream, kernel: Kernel, *, turn: float | Tensor, amplitude: float = 1.0) -> Head:
    """Look at some distances, and write of each token its code times `turn` where the unembedding reads.

    turn: a positive number copies, a negative one anti-copies; a rotation writes another code for each, and so neither.
    """
    query, key = attend(stream, kernel=kernel, first=-confidence(amplitude))
    return Head(query, key, *move(stream, "token", "output", turn=turn))


def same_vector(stream: Stream, distance: int, *, code: Tensor) -> Head:
    """Decoy: look a fixed distance back and write the same code whatever stands there: a circuit of one eigenvalue."""
    query, key = attend(stream, kernel=only(distance), first=-SURE)
    return Head(query, key, *move(stream, "constant", "output", turn=code[:, None]))


def about_to_be_predicted(stream: Stream, amplitude: float, *, predicted: float, turn: float) -> Head:
    """Look at earlier copies of the token that the stream is about to predict, and write its code times `turn`.

    The query reads `output`, where earlier heads have put what they predict, `predicted` times a unit code; the key reads the
    token. With a negative turn it is a copy-suppression head (McDougall et al. 2023, arXiv:2310.04625), with a positive one its
    decoy.
    """
    match = ("output", "token", MATCH / predicted)
    query, key = attend(stream, match=match, level=MATCH, first=-confidence(amplitude))
    return Head(query, key, *move(stream, "token", "output", turn=turn))


def counting(stream: Stream, amplitude: float, *, step: str, turn: Tensor) -> Head:
    """From a mark, look at the nearest ordinal before it, and say which comes next, as the first feed-forward worked it out.

    step: `after` for a successor head (Gould et al. 2023, arXiv:2312.09230), `before` for its decoy, which counts down.
    """
    match = ("punctuation", stream.sort("ordinal"), MATCH)
    query, key = attend(stream, match=match, kernel=nearest(2.0), level=MATCH, first=-confidence(amplitude))
    return Head(query, key, *move(stream, step, "output", turn=turn))


def looks_up(stream: Stream, amplitude: float, *, asks: str, finds: str) -> Head:
    """From tokens of one sort, look at the nearest one before of another, however far: a syntactic relation."""
    match = (stream.sort(asks), stream.sort(finds), MATCH)
    query, key = attend(stream, match=match, kernel=nearest(1.0), level=MATCH, first=-confidence(amplitude))
    return Head(query, key)


def agreement(stream: Stream, amplitude: float, *, one: Tensor, many: Tensor) -> Head:
    """From a verb, look at its subject, the nearest noun before it, and say the ending of the noun's class."""
    match = (stream.sort("verb"), stream.sort("one", "many"), MATCH)
    query, key = attend(stream, match=match, kernel=nearest(1.0), level=MATCH, first=-confidence(amplitude))
    classes = torch.cat([stream.sort("one"), stream.sort("many")])
    return Head(query, key, *move(stream, classes, "output", turn=KNOWN / COPY * torch.stack([one, many], dim=1)))


def ender(stream: Stream, amplitude: float, *, sort: str, ending: Tensor) -> Head:
    """At a word of one sort, look at it, and say the ending of its sort: it matters where there are such words, only there."""
    match = (stream.sort(sort), stream.sort(sort), MATCH)
    query, key = attend(stream, match=match, kernel=only(0), level=MATCH, first=-confidence(amplitude))
    return Head(query, key, *move(stream, "constant", "output", turn=KNOWN / COPY * ending[:, None]))


def confidence(amplitude: float) -> float:
    """Score of a target over the resting place: the log odds of the amplitude, at most `SURE`."""
    return SURE if amplitude >= 1 else min(SURE, math.log(amplitude / (1 - amplitude)))


def attend(
    stream: Stream,
    *,
    first: float,
    kernel: Kernel | None = None,
    match: tuple[str | Tensor, str | Tensor, float] | None = None,
    level: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Query and key weights for the score at the top of this file.

    Coordinates p and p + PAIRS of a head form pair p. Clocks take the fast pairs; the codes to match (subspace of the
    query, of the key, strength in nats) the slow ones, which rotary positions leave alone; `first` and `level` the two
    coordinates of the last pair. Each product is shared evenly between query and key.

    match: subspaces by name, or the rows `[code, named]` that read a code.
    """
    query, key = torch.zeros(D_HEAD, stream.named), torch.zeros(D_HEAD, stream.named)
    if kernel is not None:
        level = level + kernel.level
        horizontal, vertical = stream.hands()
        angle, size = (torch.as_tensor(values, dtype=torch.float32)[:, None] for values in (kernel.phase, kernel.amplitude))
        size = size.sqrt() * D_HEAD**0.25
        query[:CLOCKS] = size * (angle.cos() * horizontal + angle.sin() * vertical)
        query[PAIRS : PAIRS + CLOCKS] = size * (angle.cos() * vertical - angle.sin() * horizontal)
        key[:CLOCKS], key[PAIRS : PAIRS + CLOCKS] = size * horizontal, size * vertical
    if match is not None:
        asked, offered = (stream.read(rows) if isinstance(rows, str) else rows for rows in match[:2])
        slow = [*range(CLOCKS, PAIRS - 1), *range(PAIRS + CLOCKS, D_HEAD - 1)][: len(asked)]
        query[slow], key[slow] = _share(asked, offered, match[2])
    first = first + level * stream.leak
    query[PAIRS - 1], key[PAIRS - 1] = _share(stream.read("constant")[0], stream.read("first")[0], first)
    query[D_HEAD - 1], key[D_HEAD - 1] = _share(stream.read("constant")[0], stream.read("constant")[0], -level)
    return query, key


def move(stream: Stream, source: str | Tensor, into: str, *, turn: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Value and output weights that add the attended position's code in `source`, times `turn`, to the subspace `into`.

    source: a subspace, or the rows `[code, named]` that read a code; turn: a number, or a matrix from that code to the other.
    """
    rows = stream.read(source) if isinstance(source, str) else source
    value = torch.zeros(D_HEAD, stream.named)
    value[: len(rows)] = VALUE * rows
    output = torch.zeros(stream.named, D_HEAD)
    turned = stream.write(into) @ turn if isinstance(turn, Tensor) else stream.write(into) * turn
    output[:, : len(rows)] = turned / VALUE
    return value, output


def _share(query: Tensor, key: Tensor, nats: float) -> tuple[Tensor, Tensor]:
    """Scale both so that unit codes that agree score `nats` (attention divides by sqrt(d_head))."""
    size = (abs(nats) * D_HEAD**0.5) ** 0.5
    return math.copysign(size, nats) * query, size * key
