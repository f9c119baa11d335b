"""Build a phantom: a small Hugging Face model whose attention heads are known, because their weights were written by hand.

What you can learn here: how a detector of heads is calibrated. A trained model has no answer key; a phantom has.

1. Draw a vocabulary, a code for each token, a hidden basis, and a place for every part (`words`, `stream`).
2. Fill all layers with random heads and neurons, as an untrained model has them (`planting`).
3. Put the parts in their places: what is to be found, and decoys that only look like it (`parts`, `neurons`).
4. Load the weights into the Hugging Face class; add noise to every matrix when asked.

A phantom has 24 random heads or more and 256 random neurons or more. In Llama, where two query heads share a key head, each
part has the key head to itself; its neighbour, a random query on the part's keys, counts as random too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from innerworks.errors import UsageError
from innerworks.phantoms import parts
from innerworks.phantoms.families import FAMILIES, Family, load
from innerworks.phantoms.neurons import Neurons, amplify, squared_length
from innerworks.phantoms.planting import Place, add_noise, plant_head, plant_neurons, random_block
from innerworks.phantoms.stream import CLOCKS, POSITIONS, Architecture, Stream, clock_speeds, make_stream, spread_codes
from innerworks.phantoms.words import (
    PUNCTUATION,
    SPACE,
    Vocabulary,
    count_tokens,
    make_tokenizer,
    make_vocabulary,
    write_documents,
)

DECOYS = ("fixed_gap", "punctuation", "local_window", "same_first_letter")
PLANTED = ("pair_previous", "induction", "lone_previous", "duplicate_token", "first_token", *DECOYS)
GAPS = (16, 64)  # shortest and longest distance of the fixed-gap decoy
UNIGRAM_DOCUMENTS = 60  # whose token counts the unembedding's constant part is set to


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A model with its answer key.

    hf: in eval mode and float32; `save_pretrained` works, and it loads like any model. tokenizer: byte-level, built in memory,
    adds nothing at either end. truth: behaviour -> its heads, such as `L1H3`; the first `previous_token` head is the one that the
    induction head depends on, the second one nothing depends on. decoys: decoy -> its head.
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
    """Build a phantom. The seed draws all that is free, on this machine always the same.

    amplitude in (0, 1]: mass that a planted head puts on a single target where there is one; the remainder rests on the first
    position (`parts` says it exactly). noise: `noise * RMS(W) * N(0, 1)` is added to every weight matrix W, embeddings included.
    """
    if architecture not in FAMILIES:
        raise UsageError(f"architecture={architecture!r}: one of {', '.join(FAMILIES)}.")
    if not 0 < amplitude <= 1 or noise < 0:
        raise UsageError(f"amplitude={amplitude}, noise={noise}: amplitude lies in (0, 1] and noise is 0 or more.")
    family, generator, rng = FAMILIES[architecture], torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    vocabulary = make_vocabulary(rng)
    tokenizer = make_tokenizer(vocabulary)
    counts = count_tokens(tokenizer, write_documents(vocabulary, UNIGRAM_DOCUMENTS, words=120, rng=rng))
    stream = make_stream(architecture, generator)
    codes = spread_codes(len(vocabulary.tokens), generator)
    particle = vocabulary.tokens.index(SPACE + vocabulary.particle)
    counts[particle] = 0  # it comes when the duplicate-token head says so, else hardly ever
    embeddings = _embeddings(stream, vocabulary, torch.as_tensor(counts), codes)
    places = _draw_places(family, rng)
    blocks = [random_block(family, stream, generator) for _ in range(family.layers)]
    gap = int(rng.integers(GAPS[0], GAPS[1] + 1))
    for name, head in _heads(stream, amplitude, gap=gap, particle=codes[particle]).items():
        plant_head(blocks[places[name].layer], family, stream, places[name], head)
    for layer, neurons in _neurons(stream, family):
        plant_neurons(blocks[layer], stream, neurons, rng)
    hf = load(family, blocks, embeddings, end=tokenizer.convert_tokens_to_ids("<eos>"))
    add_noise(hf, noise, generator)
    return Phantom(hf=hf, tokenizer=tokenizer, seed=seed, architecture=architecture, **_answer_key(places))


def _draw_places(family: Family, rng: np.random.Generator) -> dict[str, Place]:
    """Draw a layer and a head for every part, each with a key head of its own.

    The pair keeps its order, and all come after the layer that makes the resting place; only Llama's helper, `average`, is in layer 0.
    """
    shared = family.heads // family.kv_heads
    later = range(family.flag_layer + 1, family.layers)
    free = [(layer, kv_head) for layer in later for kv_head in rng.permutation(family.kv_heads).tolist()]
    first = int(rng.choice(later[:-1]))
    drawn = {"average": (0, int(rng.integers(family.kv_heads)))}
    for name in PLANTED:
        allowed = [slot for slot in free if slot[0] == first or name != "pair_previous"]
        if name == "induction":
            allowed = [slot for slot in free if slot[0] > first]
        drawn[name] = allowed[rng.integers(len(allowed))]
        free.remove(drawn[name])
    return {
        name: Place(layer=layer, head=kv * shared + int(rng.integers(shared))) for name, (layer, kv) in drawn.items()
    }


def _heads(stream: Stream, amplitude: float, *, gap: int, particle: Tensor) -> dict[str, parts.Head]:
    """All hand-written heads by name."""
    heads = {
        "pair_previous": parts.previous_token(stream, amplitude, into="previous", loudness=1 / amplitude),
        "lone_previous": parts.previous_token(stream, amplitude, into="scratch", loudness=0.5),
        "induction": parts.induction(stream, amplitude),
        "duplicate_token": parts.duplicate_token(stream, amplitude, particle=particle),
        "first_token": parts.sink(stream, amplitude),
        "fixed_gap": parts.fixed_gap(stream, gap),
        "punctuation": parts.punctuation(stream),
        "local_window": parts.local_window(stream),
        "same_first_letter": parts.same_first_letter(stream),
    }
    return heads | ({"average": parts.average(stream)} if stream.architecture == "llama" else {})


def _neurons(stream: Stream, family: Family) -> list[tuple[int, Neurons]]:
    """The hand-written neurons and their layers."""
    amplifiers = (family.flag_layer, amplify(stream))
    return [(0, squared_length(stream)), amplifiers] if stream.architecture == "llama" else [amplifiers]


def _embeddings(stream: Stream, vocabulary: Vocabulary, counts: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """Tables `[index, d_model]` of tokens, positions (GPT-2) and outputs.

    The unembedding gives a token its log frequency by the constant, and `COPY` for its code in `output`.
    """
    token = stream.write("constant").T + codes @ stream.write("token").T + _first_letters(stream, vocabulary)
    frequency = (counts + 0.5) / (counts + 0.5).sum()
    output = frequency.log().float()[:, None] * stream.read("constant")
    output = output + parts.COPY * codes @ stream.read("output")
    tables = {"token": token, "output": output}
    if stream.architecture == "gpt2":
        angle = torch.arange(POSITIONS)[:, None] * clock_speeds()
        hands = torch.cat([angle.cos(), angle.sin()], dim=1).float() / CLOCKS**0.5
        tables["position"] = hands @ stream.write("clock").T
        tables["position"][0] += stream.write("flag")[:, 0]
    return {name: table @ stream.basis.T for name, table in tables.items()}


def _first_letters(stream: Stream, vocabulary: Vocabulary) -> Tensor:
    """What each token begins with, `[token, named]`: one of the letters, a punctuation mark, or neither."""
    initials = [vocabulary.initial(token) for token in range(len(vocabulary.tokens))]
    letters = sorted({initial for initial in initials if initial.isalpha()})
    columns = {letter: stream.write("letter")[:, index] for index, letter in enumerate(letters)}
    columns |= dict.fromkeys(PUNCTUATION, stream.write("punctuation")[:, 0])
    return torch.stack([columns.get(initial, stream.write("other")[:, 0]) for initial in initials])


def _answer_key(places: Mapping[str, Place]) -> dict[str, Mapping]:
    """The truth and the decoys as printed sites."""
    site = {name: str(place) for name, place in places.items()}
    truth = {"previous_token": (site["pair_previous"], site["lone_previous"])}
    truth |= {behaviour: (site[behaviour],) for behaviour in ("duplicate_token", "induction", "first_token")}
    return {"truth": truth, "decoys": {name: site[name] for name in DECOYS}}
