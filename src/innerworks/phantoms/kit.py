"""What is a kit? A few planted parts with their decoys, and a language in which they have a use.

For each part a kit says what it truly is (a decoy may be something, only not what it imitates), and whether the phantom's own
predictions, or another part, depend on it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from innerworks.phantoms import sentences
from innerworks.phantoms.neurons import Neurons
from innerworks.phantoms.parts import Head
from innerworks.phantoms.stream import TOKEN_CODE, Stream, haar
from innerworks.phantoms.words import PLAIN, Language, Vocabulary, write_documents
from innerworks.text import Document

LOUDEST = 100.0  # how much louder the pair's previous-token head may write to make up for a small amplitude
ASIDE = 4.0  # norm of what a neuron writes that nothing needs: a quarter of a signal
LAGS = (5, 9)  # how far back the copier at a gap looks, from and below: no kind of head looks there


@runtime_checkable
class Write(Protocol):
    """Writes n documents of about so many words."""

    def __call__(self, vocabulary: Vocabulary, n: int, *, words: int, rng: np.random.Generator) -> list[Document]:
        """Write them."""
        ...


def plain_documents(vocabulary: Vocabulary, n: int, *, words: int, rng: np.random.Generator) -> list[Document]:
    """Documents of one domain, without syntax."""
    texts = write_documents(vocabulary, n, words=words, rng=rng)
    return [Document(id=f"{number:03d}", text=text) for number, text in enumerate(texts)]


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

    def code(self, word: str) -> Tensor:
        """Code of a word."""
        return self.codes[self.vocabulary.id_of(word)]

    def ending(self, role: str) -> Tensor:
        """Code of a role's ending."""
        return self.codes[sentences.ending_ids(self.vocabulary)[role]]

    def turn(self, name: str) -> Tensor:
        """A rotation of codes, drawn once per name."""
        generator = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + sum(name.encode()))
        return haar(TOKEN_CODE, generator, fixed=torch.zeros(TOKEN_CODE, 0))

    def between(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` and below `high`, drawn once per name."""
        return int(np.random.default_rng([self.seed, 3, *name.encode()]).integers(low, high))

    def aside(self, name: str) -> Tensor:
        """A small random direction `[named]`, drawn once per name: what a neuron writes that nothing needs."""
        drawn = np.random.default_rng([self.seed, 4, *name.encode()]).normal(size=self.stream.named)
        return torch.as_tensor(ASIDE * drawn / np.linalg.norm(drawn), dtype=torch.float32)

    def any_code(self, name: str) -> Tensor:
        """A unit code that is of no token, drawn once per name."""
        drawn = np.random.default_rng([self.seed, 5, *name.encode()]).normal(size=TOKEN_CODE)
        return torch.as_tensor(drawn / np.linalg.norm(drawn), dtype=torch.float32)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One head: how it is made, and what it truly is.

    behaviours: all kinds that it is of; of a planted head, the first is what it was planted as. decoy: it imitates something
    that it is not. helper: it is there for another part, and not to be found. necessary: the phantom's predictions, or another
    part, depend on it. at_once: it stands in layer 0, where no head can rest.
    """

    name: str
    make: Callable[[Materials], Head]
    behaviours: tuple[str, ...] = ()
    decoy: bool = False
    helper: bool = False
    necessary: bool = False
    at_once: bool = False


@dataclass(frozen=True, kw_only=True)
class NeuronPart:
    """One neuron, and what it truly is, as for a `Part`.

    reads: the head whose writing it reads, so that it stands in that head's layer or a later one. last: it stands in the last
    layer, since only the final norm and the unembedding may see what it writes.
    """

    name: str
    make: Callable[[Materials], Neurons]
    behaviours: tuple[str, ...] = ()
    decoy: bool = False
    helper: bool = False
    necessary: bool = False
    reads: str = ""
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class Kit:
    """Parts that fit into one phantom.

    parts: its heads. chain: heads that must stand in this order, since each reads what those before it write. neurons: its
    neurons; room: how many more neurons than usual a layer has. sorts, roles: what sort of token some tokens are, and which role
    some have. foretold: tokens that come when a part says so, else hardly ever. reads_everything: the unembedding is like a
    trained one (`embeddings`, 4). activation: of the feed-forward, where it is not the architecture's own.
    """

    name: str
    says: str
    parts: tuple[Part, ...] = ()
    chain: tuple[str, ...] = ()
    neurons: tuple[NeuronPart, ...] = ()
    language: Language = PLAIN
    sorts: Callable[[Vocabulary], Mapping[int, str]] = lambda vocabulary: {}
    roles: Callable[[Vocabulary], Mapping[int, str]] = lambda vocabulary: {}
    foretold: Callable[[Vocabulary], Sequence[int]] = lambda vocabulary: [vocabulary.particle_id]
    write: Write = plain_documents
    room: int = 0
    reads_everything: bool = False
    activation: str | None = None
    depth: str = "quick"

    @property
    def chapter(self) -> str:
        """Which chapter's parts are to be found: `heads` or `neurons`."""
        return "neurons" if self.neurons else "heads"

    @property
    def all(self) -> tuple[Part | NeuronPart, ...]:
        """Heads and neurons."""
        return (*self.parts, *self.neurons)

    @property
    def planted(self) -> tuple[Part | NeuronPart, ...]:
        """What is to be found."""
        return tuple(part for part in self.all if not part.decoy and not part.helper)
