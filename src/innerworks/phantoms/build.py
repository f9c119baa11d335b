"""Build a phantom: a small Hugging Face model whose heads are known, because their weights were written by hand.

What you can learn here: how a detector of heads is calibrated. A trained model has no answer key; a phantom has.

1. Draw a vocabulary, a code for each token, a hidden basis, and a place for every part (`words`, `stream`, `places`).
2. Fill all layers with random heads and neurons, as an untrained model has them (`planting`).
3. Put the parts in their places: what is to be found, and decoys that only look like it (`parts`, `neurons`).
4. Load the weights into the Hugging Face class; add noise to every matrix when asked.

A phantom has 24 random heads or more and 256 random neurons or more. In Llama, where two query heads share a key head,
each part has the key head to itself; its neighbour is a random query on the part's keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerworks.errors import UsageError
from innerworks.phantoms import parts
from innerworks.phantoms.embeddings import embedding_tables
from innerworks.phantoms.families import FAMILIES, Family, load
from innerworks.phantoms.neurons import Neurons, amplify, squared_length
from innerworks.phantoms.places import DECOYS, HELPER, draw_places
from innerworks.phantoms.planting import add_noise, plant_head, plant_neurons, random_block
from innerworks.phantoms.stream import Architecture, Stream, make_stream, spread_codes
from innerworks.phantoms.words import count_tokens, make_tokenizer, make_vocabulary, write_documents

GAPS = (16, 64)  # shortest and longest distance of the fixed-gap decoy
UNIGRAM_DOCUMENTS = 60  # whose token counts the unembedding's constant part is set to
LOUDEST = 100.0  # how much louder the pair's previous-token head may write to make up for a small amplitude


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A model with its answer key.

    hf: in eval mode and float32; `save_pretrained` works, and it loads like any model.
    tokenizer: byte-level, built in memory; adds nothing at either end. Every token may be used as a random token.
    truth: behaviour -> its heads, such as `L1H3`. Of the two for `previous_token`, the induction head depends on the
    first; nothing depends on the second.
    decoys: decoy -> its head.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    truth: Mapping[str, tuple[str, ...]]
    decoys: Mapping[str, str]
    seed: int
    architecture: str

    def documents(self, n: int, *, words: int = 120, seed: int = 0) -> list[str]:
        """Write n texts in the phantom's language: Zipfian words, punctuation, phrases that return within a text."""
        vocabulary = make_vocabulary(np.random.default_rng(self.seed))
        return write_documents(vocabulary, n, words=words, rng=np.random.default_rng([self.seed, seed, 1]))


def build(architecture: Architecture, *, seed: int, amplitude: float = 1.0, noise: float = 0.0) -> Phantom:
    """Build a phantom. The seed draws all that is free; the same seed gives the same weights.

    amplitude: in (0, 1], about the mass that a planted head puts on its target where there is one; the remainder rests
    on the first position (`parts` says it exactly). Decoys and random heads stay as they are.
    noise: `noise * RMS(W) * N(0, 1)` is added to every weight matrix W, embeddings included.
    """
    if architecture not in FAMILIES:
        raise UsageError(f"architecture={architecture!r}: one of {', '.join(FAMILIES)}.")
    if not 0 < amplitude <= 1 or not noise >= 0:
        raise UsageError(f"amplitude={amplitude}, noise={noise}: amplitude lies in (0, 1], and noise is 0 or more.")
    family, generator, rng = FAMILIES[architecture], torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    vocabulary = make_vocabulary(rng)
    tokenizer = make_tokenizer(vocabulary)
    counts = count_tokens(tokenizer, write_documents(vocabulary, UNIGRAM_DOCUMENTS, words=120, rng=rng))
    counts[vocabulary.particle_id] = 0  # it comes when the duplicate-token head says so, else hardly ever
    stream, codes = make_stream(architecture, generator), spread_codes(len(vocabulary.tokens), generator)
    blocks = [random_block(family, stream, generator) for _ in range(family.layers)]
    places = draw_places(family, rng)
    gap = int(rng.integers(GAPS[0], GAPS[1] + 1))
    for name, head in _heads(stream, amplitude, gap=gap, particle=codes[vocabulary.particle_id]).items():
        plant_head(blocks[places[name].layer], family, stream, places[name], head)
    for layer, neurons in _neurons(stream, family):
        plant_neurons(blocks[layer], stream, neurons, rng)
    embeddings = embedding_tables(stream, vocabulary, torch.as_tensor(counts), codes)
    hf = load(family, blocks, embeddings, end=vocabulary.end_id)
    add_noise(hf, noise, generator)
    site = {name: str(place) for name, place in places.items()}
    truth = {"previous_token": (site["pair_previous"], site["lone_previous"])}
    truth |= {behaviour: (site[behaviour],) for behaviour in ("duplicate_token", "induction", "first_token")}
    decoys = {decoy: site[decoy] for decoy in DECOYS}
    return Phantom(hf=hf, tokenizer=tokenizer, truth=truth, decoys=decoys, seed=seed, architecture=architecture)


def _heads(stream: Stream, amplitude: float, *, gap: int, particle: Tensor) -> dict[str, parts.Head]:
    """All hand-written heads by name."""
    loudness = min(1 / amplitude, LOUDEST)
    heads = {
        "pair_previous": parts.previous_token(stream, amplitude, into="previous", loudness=loudness),
        "lone_previous": parts.previous_token(stream, amplitude, into="scratch", loudness=0.5),
        "induction": parts.induction(stream, amplitude),
        "duplicate_token": parts.duplicate_token(stream, amplitude, particle=particle),
        "first_token": parts.sink(stream, amplitude),
        "fixed_gap": parts.fixed_gap(stream, gap),
        "punctuation": parts.punctuation(stream),
        "local_window": parts.local_window(stream),
        "same_first_letter": parts.same_first_letter(stream),
    }
    return heads | ({HELPER: parts.average(stream)} if stream.architecture == "llama" else {})


def _neurons(stream: Stream, family: Family) -> list[tuple[int, Neurons]]:
    """The hand-written neurons and their layers."""
    amplifiers = (family.flag_layer, amplify(stream))
    return [(0, squared_length(stream)), amplifiers] if stream.architecture == "llama" else [amplifiers]
