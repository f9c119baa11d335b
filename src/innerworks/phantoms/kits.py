"""Which parts go into one phantom? A kit is a few planted heads with their decoys, and a language in which they have a use.

One phantom has no room for every kind: a decoy of one kind may be another kind itself. So there are kits, and `build` makes a
phantom of one of them. For each part a kit says what it truly is (a decoy may be something, only not what it imitates), and
whether the phantom's own predictions, or another part, depend on it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from innerworks.errors import UsageError, near_misses
from innerworks.phantoms import parts
from innerworks.phantoms.kernels import only, window
from innerworks.phantoms.parts import Head
from innerworks.phantoms.stream import TOKEN_CODE, Stream, haar
from innerworks.phantoms.words import PLAIN, PUNCTUATION, SPACE, SPECIAL, Language, Vocabulary

LOUDEST = 100.0  # how much louder the pair's previous-token head may write to make up for a small amplitude
LAGS = (5, 9)  # how far back the copier at a gap looks, from and below: no kind of head looks there
PREDICTED = 0.5  # of a unit code: how strongly it predicts; times 9 logits
ENHANCED = 0.3  # what the decoy that looks at what is predicted adds to it


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a phantom's parts are made of."""

    stream: Stream
    amplitude: float
    vocabulary: Vocabulary
    codes: Tensor  # of each token, [token, TOKEN_CODE]
    gap: int  # of the fixed-gap decoy
    seed: int

    @property
    def loudness(self) -> float:
        """What makes up for a small amplitude."""
        return min(1 / self.amplitude, LOUDEST)

    @property
    def lag(self) -> int:
        """How far back the copier at a gap looks."""
        return int(np.random.default_rng([self.seed, 2]).integers(*LAGS))

    @property
    def particle(self) -> Tensor:
        """Code of the particle."""
        return self.codes[self.vocabulary.particle_id]

    def turn(self, name: str) -> Tensor:
        """A rotation of codes, drawn once per name."""
        generator = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + sum(name.encode()))
        return haar(TOKEN_CODE, generator, fixed=torch.zeros(TOKEN_CODE, 0))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One head: how it is made, and what it truly is.

    behaviours: all kinds that it is of; of a planted head, the first is what it was planted as. decoy: it imitates something
    that it is not. necessary: the phantom's predictions, or another part, depend on it.
    """

    name: str
    make: Callable[[Materials], Head]
    behaviours: tuple[str, ...] = ()
    decoy: bool = False
    necessary: bool = False


@dataclass(frozen=True, kw_only=True)
class Kit:
    """Parts that fit into one phantom.

    chain: parts that must stand in this order, since each reads what those before it write. sorts: what sort of token some
    tokens are. particle: does a part say when the particle comes? Then nothing else does.
    """

    name: str
    says: str
    parts: tuple[Part, ...]
    chain: tuple[str, ...] = ()
    language: Language = PLAIN
    sorts: Callable[[Vocabulary], Mapping[int, str]] = lambda vocabulary: {}
    particle: bool = True
    depth: str = "quick"


def _pieces(vocabulary: Vocabulary) -> dict[int, str]:
    """Does a token begin a word, or go on with it? Marks and the like do neither."""
    neither = {*SPECIAL, *PUNCTUATION, SPACE}
    return {
        token: "begins" if text.startswith(SPACE) else "continues"
        for token, text in enumerate(vocabulary.tokens)
        if text not in neither
    }


def _ordinals(vocabulary: Vocabulary) -> dict[int, str]:
    """Which tokens do lists count?"""
    return {token: "ordinal" for one in vocabulary.ordered for token in one}


def _local_window(m: Materials) -> Head:
    return parts.local_window(m.stream)


def _fixed_gap(m: Materials) -> Head:
    return parts.fixed_gap(m.stream, m.gap)


PATTERNS = Kit(
    name="patterns",
    says="an induction head and the previous-token head that it needs, another that nothing needs, a duplicate-token head, a "
    "sink and a punctuation head",
    parts=(
        Part(
            name="pair_previous",
            make=lambda m: parts.previous_token(m.stream, m.amplitude, into="previous", loudness=m.loudness),
            behaviours=("previous_token",),
            necessary=True,
        ),
        Part(
            name="induction",
            make=lambda m: parts.induction(m.stream, m.amplitude),
            behaviours=("induction", "copying"),
            necessary=True,
        ),
        Part(
            name="lone_previous",
            make=lambda m: parts.previous_token(m.stream, m.amplitude, into="scratch", loudness=0.5),
            behaviours=("previous_token",),
        ),
        Part(
            name="duplicate_token",
            make=lambda m: parts.duplicate_token(m.stream, m.amplitude, particle=m.particle),
            behaviours=("duplicate_token",),
            necessary=True,
        ),
        Part(name="first_token", make=lambda m: parts.sink(m.stream, m.amplitude), behaviours=("first_token",)),
        Part(name="fixed_gap", make=_fixed_gap, decoy=True),
        Part(name="punctuation", make=lambda m: parts.punctuation(m.stream), behaviours=("punctuation",)),
        Part(name="local_window", make=_local_window, decoy=True),
        Part(name="same_first_letter", make=lambda m: parts.same_first_letter(m.stream), decoy=True),
    ),
    chain=("pair_previous", "induction"),
)

OFFSETS = Kit(
    name="offsets",
    says="heads at the current token, two and three back, and a subword joiner",
    parts=(
        Part(name="current_token", make=lambda m: parts.offset(m.stream, m.amplitude, 0), behaviours=("current_token",)),
        Part(name="offset_2", make=lambda m: parts.offset(m.stream, m.amplitude, 2), behaviours=("offset_2",)),
        Part(name="offset_3", make=lambda m: parts.offset(m.stream, m.amplitude, 3), behaviours=("offset_3",)),
        Part(
            name="subword_joiner",
            make=lambda m: parts.joiner(m.stream, m.amplitude, particle=m.particle),
            behaviours=("subword_joiner",),
            necessary=True,
        ),
        Part(
            name="one_back_anywhere",
            make=lambda m: parts.offset(m.stream, 1.0, 1),
            behaviours=("previous_token",),
            decoy=True,
        ),
        Part(name="one_or_two_back", make=lambda m: parts.band_of_offsets(m.stream, 1, 2), decoy=True),
        Part(name="local_window", make=_local_window, decoy=True),
        Part(name="fixed_gap", make=_fixed_gap, decoy=True),
    ),
    language=Language(particle="joined", suffix=(0.15, 0.4), longest=2),
    sorts=_pieces,
)

WRITING = Kit(
    name="writing",
    says="a copying head, an anti-copying one, one that suppresses what the first predicts, and a successor head",
    parts=(
        Part(
            name="copying",
            make=lambda m: parts.writer(m.stream, window(8), turn=0.3, amplitude=m.amplitude),
            behaviours=("copying",),
        ),
        Part(
            name="copier_at_a_gap",
            make=lambda m: parts.writer(m.stream, only(m.lag), turn=PREDICTED),
            behaviours=("copying",),
            decoy=True,
        ),
        Part(
            name="copier_of_predicted",
            make=lambda m: parts.about_to_be_predicted(m.stream, 1.0, predicted=PREDICTED, turn=ENHANCED),
            behaviours=("copying",),
            decoy=True,
        ),
        Part(
            name="copy_suppression",
            make=lambda m: parts.about_to_be_predicted(
                m.stream, m.amplitude, predicted=PREDICTED + ENHANCED, turn=-PREDICTED - ENHANCED
            ),
            behaviours=("copy_suppression", "anti_copying"),
            necessary=True,
        ),
        Part(
            name="anti_copying",
            make=lambda m: parts.writer(m.stream, window(8), turn=-0.3, amplitude=m.amplitude),
            behaviours=("anti_copying",),
        ),
        Part(
            name="successor",
            make=lambda m: parts.counting(m.stream, m.amplitude, step="after", turn=m.turn("after")),
            behaviours=("successor",),
            necessary=True,
        ),
        Part(
            name="predecessor",
            make=lambda m: parts.counting(m.stream, 1.0, step="before", turn=0.3 * m.turn("before")),
            decoy=True,
        ),
        Part(name="same_vector", make=lambda m: parts.same_vector(m.stream, m.lag, code=0.2 * m.particle), decoy=True),
        Part(
            name="other_codes",
            make=lambda m: parts.writer(m.stream, window(8), turn=0.2 * m.turn("other")),
            decoy=True,
        ),
    ),
    chain=("copier_at_a_gap", "copier_of_predicted", "copy_suppression"),
    language=Language(lists=True),
    sorts=_ordinals,
    particle=False,
    depth="standard",
)

KITS: dict[str, Kit] = {kit.name: kit for kit in (PATTERNS, OFFSETS, WRITING)}


def kit_of(name: str) -> Kit:
    """Find a kit by name."""
    if name not in KITS:
        raise UsageError(f"kit={name!r}: one of {', '.join(KITS)}.{near_misses(name, KITS)}")
    return KITS[name]
