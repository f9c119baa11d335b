"""Build a phantom: a small Hugging Face model whose heads and neurons are known, because their weights were written by hand.

What you can learn here: how a detector is calibrated. A trained model has no answer key; a phantom has.

1. Draw a vocabulary, a code for each token, a hidden basis, and a place for every part (`words`, `stream`, `places`).
2. Fill all layers with random heads and neurons, as an untrained model has them (`planting`).
3. Put the parts of a kit in their places: what is to be found, and decoys that only look like it (`kits`, `parts`,
   `neuron_parts`), and what they need: `neurons` that find the first position.
4. Load the weights into the Hugging Face class; add noise to every matrix when asked.

A phantom has 24 random heads or more and 256 random neurons or more. In Llama, where two query heads share a key head,
each part has the key head to itself; its neighbour is a random query on the part's keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerworks.errors import UsageError
from innerworks.phantoms import parts
from innerworks.phantoms.embeddings import embedding_tables, read_everything
from innerworks.phantoms.families import FAMILIES, Block, Family, load
from innerworks.phantoms.kit import Kit, Materials
from innerworks.phantoms.kits import kit_of
from innerworks.phantoms.neurons import Neurons, amplify, order, squared_length, together
from innerworks.phantoms.places import HELPER, Place, draw_layer, draw_places
from innerworks.phantoms.planting import add_noise, plant_head, plant_neurons, random_block
from innerworks.phantoms.stream import Architecture, make_stream, spread_codes
from innerworks.phantoms.words import count_tokens, make_tokenizer, make_vocabulary
from innerworks.sites import Site
from innerworks.text import Document

GAPS = (16, 64)  # shortest and longest distance of the fixed-gap decoy
NAMELESS = ("token", "before")  # all that random neurons know where neurons are to be found
UNIGRAM_DOCUMENTS = 60  # whose token counts the unembedding's constant part is set to


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A model with its answer key.

    hf: in eval mode and float32; `save_pretrained` works, and it loads like any model.
    tokenizer: byte-level, built in memory; adds nothing at either end. Every token may be used as a random token.
    truth: behaviour -> the heads or neurons planted as such, such as `L1H3`, `L4N17`. decoys: decoy -> its site.
    helpers: heads and neurons that are there for others, such as those that find the first position; labels of theirs that
    `behaviours` does not name are not counted as mistakes.
    behaviours: site -> every kind that it truly is of, decoys included; sites that are not named are of none.
    necessary: what the phantom's predictions, where such a part has something to do, or another part depend on. Of the two heads
    for `previous_token`, the induction head depends on the first; nothing depends on the second.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    truth: Mapping[str, tuple[str, ...]]
    decoys: Mapping[str, str]
    helpers: tuple[str, ...]
    behaviours: Mapping[str, tuple[str, ...]]
    necessary: tuple[str, ...]
    seed: int
    architecture: Architecture
    kit: str

    def documents(self, n: int, *, words: int = 120, seed: int = 0) -> list[str]:
        """Write n texts in the phantom's language: Zipfian words, punctuation, phrases that return within a text."""
        return [document.text for document in self.corpus(n, words=words, seed=seed)]

    def corpus(self, n: int, *, words: int = 120, seed: int = 0) -> list[Document]:
        """The same as documents, each with its domain and, where the kit has syntax, its trees."""
        kit = kit_of(self.kit)
        vocabulary = make_vocabulary(np.random.default_rng(self.seed), kit.language)
        return kit.write(vocabulary, n, words=words, rng=np.random.default_rng([self.seed, seed, 1]))


def build(architecture: Architecture, *, seed: int, amplitude: float = 1.0, noise: float = 0.0, kit: str = "patterns") -> Phantom:
    """Build a phantom. The seed draws all that is free; the same seed gives the same weights.

    amplitude: in (0, 1], about the mass that a planted head puts on its target where there is one; the remainder rests
    on the first position (`parts` says it exactly); of a planted neuron, the share of its input weights that follows its rule
    (`neuron_parts`). Decoys, helpers and all that is random stay as they are.
    noise: `noise * RMS(W) * N(0, 1)` is added to every weight matrix W, embeddings included.
    kit: which parts it has: `patterns`, `offsets`, `writing`, `sentences` of heads, `neurons` and `relu` of neurons
    (`kits` and `neuron_kits` say what is in them).
    """
    if architecture not in FAMILIES:
        raise UsageError(f"architecture={architecture!r}: one of {', '.join(FAMILIES)}.")
    if not 0 < amplitude <= 1 or not noise >= 0:
        raise UsageError(f"amplitude={amplitude}, noise={noise}: amplitude lies in (0, 1], and noise is 0 or more.")
    chosen = kit_of(kit)
    family = family_of(chosen, architecture)
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    vocabulary = make_vocabulary(rng, chosen.language)
    tokenizer = make_tokenizer(vocabulary)
    written = chosen.write(vocabulary, UNIGRAM_DOCUMENTS, words=120, rng=rng)
    frequencies = torch.as_tensor(count_tokens(tokenizer, [document.text for document in written]))
    counts = frequencies.index_fill(0, torch.tensor(list(chosen.foretold(vocabulary)), dtype=torch.long), 0)  # else hardly ever
    stream, codes = make_stream(architecture, generator), spread_codes(len(vocabulary.tokens), generator)
    known = NAMELESS if chosen.chapter == "neurons" else None
    blocks = [random_block(family, stream, generator, neurons_know=known) for _ in range(family.layers)]
    names, at_once = [part.name for part in chosen.parts], [part.name for part in chosen.parts if part.at_once]
    places = draw_places(family, rng, names, chosen.chain, at_once)
    gap = int(rng.integers(GAPS[0], GAPS[1] + 1))
    made = Materials(stream=stream, amplitude=amplitude, vocabulary=vocabulary, codes=codes, gap=gap, seed=seed)
    heads = _heads(chosen, made)
    for name, head in heads.items():
        plant_head(blocks[places[name].layer], family, stream, places[name], head)
    neurons = _plant_neurons(chosen, made, family, places, blocks, rng)
    tables = embedding_tables(stream, vocabulary, counts, codes, chosen.sorts(vocabulary), chosen.roles(vocabulary))
    if chosen.reads_everything:
        tables["output"] = read_everything(tables["output"], stream, frequencies, generator)
    hf = load(family, blocks, tables, end=vocabulary.end_id)
    add_noise(hf, noise, generator)
    sites = {name: [str(places[name])] for name in heads} | neurons
    return Phantom(hf=hf, tokenizer=tokenizer, seed=seed, architecture=architecture, kit=kit, **_answers(chosen, sites))


def family_of(kit: Kit, architecture: Architecture) -> Family:
    """An architecture as a kit asks for it."""
    own = FAMILIES[architecture]
    return replace(own, neurons=own.neurons + kit.room, activation=kit.activation or own.activation)


def _answers(kit: Kit, sites: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The answer key. sites: of every part by name, and of what is no part of the kit, which are helpers."""
    site, named = {part.name: sites[part.name][0] for part in kit.all}, {part.name for part in kit.all}
    return {
        "truth": {
            behaviour: tuple(site[part.name] for part in kit.planted if part.behaviours[0] == behaviour)
            for behaviour in dict.fromkeys(part.behaviours[0] for part in kit.planted)
        },
        "decoys": {part.name: site[part.name] for part in kit.all if part.decoy},
        "helpers": tuple(
            [site[part.name] for part in kit.all if part.helper]
            + [one for name, some in sites.items() if name not in named for one in some]
        ),
        "behaviours": {site[part.name]: part.behaviours for part in kit.all if part.behaviours},
        "necessary": tuple(site[part.name] for part in kit.all if part.necessary),
    }


def _heads(kit: Kit, made: Materials) -> dict[str, parts.Head]:
    """All hand-written heads by name."""
    heads = {part.name: part.make(made) for part in kit.parts}
    return heads | ({HELPER: parts.average(made.stream)} if made.stream.architecture == "llama" else {})


def _plant_neurons(
    kit: Kit, made: Materials, family: Family, places: Mapping[str, Place], blocks: Sequence[Block], rng: np.random.Generator
) -> dict[str, list[str]]:
    """Plant all hand-written neurons, layer by layer, and say where they are: name -> sites."""
    planned = _helpers(made, family)
    for part in kit.neurons:
        strength = 1.0 if part.decoy or part.helper else made.amplitude
        planned.append(Planned(part.name, draw_layer(family, rng, part, places), part.make(made), strength))
    sites: dict[str, list[str]] = {}
    for layer in sorted({one.layer for one in planned}):
        mine = [one for one in planned if one.layer == layer]
        names = [one.name for one in mine for _ in one.neurons.gate]
        strength = torch.tensor([one.strength for one in mine for _ in one.neurons.gate])
        drawn = plant_neurons(blocks[layer], made.stream, together([one.neurons for one in mine]), rng, strength)
        for name, neuron in zip(names, drawn, strict=True):
            sites.setdefault(name, []).append(str(Site(layer=layer, neuron=neuron)))
    return sites


class Planned(NamedTuple):
    """Neurons of one name, and where they go."""

    name: str
    layer: int
    neurons: Neurons
    strength: float = 1.0


def _helpers(made: Materials, family: Family) -> list[Planned]:
    """The neurons that every phantom of an architecture or a language has."""
    stream, ordered = made.stream, made.vocabulary.ordered
    found = [Planned("squared_length", 0, squared_length(stream))] if stream.architecture == "llama" else []
    found.append(Planned("amplify", family.flag_layer, amplify(stream)))
    if ordered:
        turns = {name: made.turn(name) for name in ("after", "before")}
        found.append(Planned("order", 0, order(stream, made.codes, ordered, turns)))
    return found
