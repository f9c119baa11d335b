"""Build a phantom: a small Hugging Face model whose heads are known, because their weights were written by hand.

What you can learn here: how a detector of heads is calibrated. A trained model has no answer key; a phantom has.

1. Draw a vocabulary, a code for each token, a hidden basis, and a place for every part (`words`, `stream`, `places`).
2. Fill all layers with random heads and neurons, as an untrained model has them (`planting`).
3. Put the parts of a kit in their places: what is to be found, and decoys that only look like it (`kits`, `parts`, `neurons`).
4. Load the weights into the Hugging Face class; add noise to every matrix when asked.

A phantom has 24 random heads or more and 256 random neurons or more. In Llama, where two query heads share a key head,
each part has the key head to itself; its neighbour is a random query on the part's keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerworks.errors import UsageError
from innerworks.phantoms import parts
from innerworks.phantoms.embeddings import embedding_tables
from innerworks.phantoms.families import FAMILIES, Family, load
from innerworks.phantoms.kits import Kit, Materials, kit_of
from innerworks.phantoms.neurons import Neurons, amplify, order, squared_length, together
from innerworks.phantoms.places import HELPER, draw_places
from innerworks.phantoms.planting import add_noise, plant_head, plant_neurons, random_block
from innerworks.phantoms.stream import Architecture, make_stream, spread_codes
from innerworks.phantoms.words import count_tokens, make_tokenizer, make_vocabulary, write_documents
from innerworks.text import Document

GAPS = (16, 64)  # shortest and longest distance of the fixed-gap decoy
UNIGRAM_DOCUMENTS = 60  # whose token counts the unembedding's constant part is set to


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A model with its answer key.

    hf: in eval mode and float32; `save_pretrained` works, and it loads like any model.
    tokenizer: byte-level, built in memory; adds nothing at either end. Every token may be used as a random token.
    truth: behaviour -> the heads planted as such, such as `L1H3`. decoys: decoy -> its head.
    behaviours: head -> every kind that it truly is of, decoys included; heads that are not named are of none.
    necessary: heads that the phantom's predictions, where such a head has something to do, or another part depend on. Of the
    two for `previous_token`, the induction head depends on the first; nothing depends on the second.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    truth: Mapping[str, tuple[str, ...]]
    decoys: Mapping[str, str]
    behaviours: Mapping[str, tuple[str, ...]]
    necessary: tuple[str, ...]
    seed: int
    architecture: str
    kit: str

    def documents(self, n: int, *, words: int = 120, seed: int = 0) -> list[str]:
        """Write n texts in the phantom's language: Zipfian words, punctuation, phrases that return within a text."""
        return [document.text for document in self.corpus(n, words=words, seed=seed)]

    def corpus(self, n: int, *, words: int = 120, seed: int = 0) -> list[Document]:
        """The same as documents."""
        vocabulary = make_vocabulary(np.random.default_rng(self.seed), kit_of(self.kit).language)
        texts = write_documents(vocabulary, n, words=words, rng=np.random.default_rng([self.seed, seed, 1]))
        return [Document(id=f"{number:03d}", text=text) for number, text in enumerate(texts)]


def build(architecture: Architecture, *, seed: int, amplitude: float = 1.0, noise: float = 0.0, kit: str = "patterns") -> Phantom:
    """Build a phantom. The seed draws all that is free; the same seed gives the same weights.

    amplitude: in (0, 1], about the mass that a planted head puts on its target where there is one; the remainder rests
    on the first position (`parts` says it exactly). Decoys and random heads stay as they are.
    noise: `noise * RMS(W) * N(0, 1)` is added to every weight matrix W, embeddings included.
    kit: which parts it has: `patterns`, `offsets`, `writing` (`kits` says what is in them).
    """
    if architecture not in FAMILIES:
        raise UsageError(f"architecture={architecture!r}: one of {', '.join(FAMILIES)}.")
    if not 0 < amplitude <= 1 or not noise >= 0:
        raise UsageError(f"amplitude={amplitude}, noise={noise}: amplitude lies in (0, 1], and noise is 0 or more.")
    family, chosen = FAMILIES[architecture], kit_of(kit)
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    vocabulary = make_vocabulary(rng, chosen.language)
    tokenizer = make_tokenizer(vocabulary)
    counts = count_tokens(tokenizer, write_documents(vocabulary, UNIGRAM_DOCUMENTS, words=120, rng=rng))
    if chosen.particle:
        counts[vocabulary.particle_id] = 0  # it comes when a part says so, else hardly ever
    stream, codes = make_stream(architecture, generator), spread_codes(len(vocabulary.tokens), generator)
    blocks = [random_block(family, stream, generator) for _ in range(family.layers)]
    places = draw_places(family, rng, [part.name for part in chosen.parts], chosen.chain)
    gap = int(rng.integers(GAPS[0], GAPS[1] + 1))
    made = Materials(stream=stream, amplitude=amplitude, vocabulary=vocabulary, codes=codes, gap=gap, seed=seed)
    for name, head in _heads(chosen, made).items():
        plant_head(blocks[places[name].layer], family, stream, places[name], head)
    for layer, neurons in _neurons(made, family):
        plant_neurons(blocks[layer], stream, neurons, rng)
    embeddings = embedding_tables(stream, vocabulary, torch.as_tensor(counts), codes, chosen.sorts(vocabulary))
    hf = load(family, blocks, embeddings, end=vocabulary.end_id)
    add_noise(hf, noise, generator)
    site = {name: str(place) for name, place in places.items()}
    return Phantom(hf=hf, tokenizer=tokenizer, seed=seed, architecture=architecture, kit=kit, **_answers(chosen, site))


def _answers(kit: Kit, site: Mapping[str, str]) -> dict[str, Any]:
    """The answer key."""
    planted = [part for part in kit.parts if not part.decoy]
    return {
        "truth": {
            behaviour: tuple(site[part.name] for part in planted if part.behaviours[0] == behaviour)
            for behaviour in dict.fromkeys(part.behaviours[0] for part in planted)
        },
        "decoys": {part.name: site[part.name] for part in kit.parts if part.decoy},
        "behaviours": {site[part.name]: part.behaviours for part in kit.parts if part.behaviours},
        "necessary": tuple(site[part.name] for part in kit.parts if part.necessary),
    }


def _heads(kit: Kit, made: Materials) -> dict[str, parts.Head]:
    """All hand-written heads by name."""
    heads = {part.name: part.make(made) for part in kit.parts}
    return heads | ({HELPER: parts.average(made.stream)} if made.stream.architecture == "llama" else {})


def _neurons(made: Materials, family: Family) -> list[tuple[int, Neurons]]:
    """The hand-written neurons and their layers."""
    stream, ordered = made.stream, made.vocabulary.ordered
    first = [squared_length(stream)] if stream.architecture == "llama" else [amplify(stream)]
    if ordered:
        turns = {name: made.turn(name) for name in ("after", "before")}
        first.append(order(stream, made.codes, ordered, turns))
    layers = [(0, together(first))]
    return layers + [(family.flag_layer, amplify(stream))] if stream.architecture == "llama" else layers
