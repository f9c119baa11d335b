"""Where the parts stand: a layer and a head for each, drawn at random, so that no detector can lean on an index."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from innerworks.phantoms.families import Family
from innerworks.phantoms.kit import NeuronPart

HELPER = "average"  # Llama's, in layer 0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a head is; prints as `L1H3`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


def draw_places(
    family: Family, rng: np.random.Generator, names: Sequence[str], chain: Sequence[str] = (), at_once: Collection[str] = ()
) -> dict[str, Place]:
    """Draw a layer and a head for every part, each with a key head of its own.

    chain: parts, in the order of names, each in a later layer than the one before it. All come after the layer that makes the
    resting place, but for the helper and those of `at_once` in layer 0.
    """
    shared = family.heads // family.kv_heads
    later = range(family.flag_layer + 1, family.layers)
    free = [(layer, kv_head) for layer in later for kv_head in range(family.kv_heads)]
    first = int(rng.choice(later[: 1 - len(chain)])) if chain else 0
    drawn = {HELPER: (0, int(rng.integers(family.kv_heads)))}
    for name in names:
        if name in at_once:
            drawn[name] = (0, int(rng.choice([one for one in range(family.kv_heads) if (0, one) not in drawn.values()])))
            continue
        layers = later if name not in chain else _between(chain, name, first, drawn, family.layers)
        allowed = [slot for slot in free if slot[0] in layers]
        drawn[name] = allowed[rng.integers(len(allowed))]
        free.remove(drawn[name])
    head = {name: kv_head * shared + int(rng.integers(shared)) for name, (_, kv_head) in drawn.items()}
    return {name: Place(layer=layer, head=head[name]) for name, (layer, _) in drawn.items()}


def draw_layer(family: Family, rng: np.random.Generator, part: NeuronPart, places: Mapping[str, Place]) -> int:
    """Draw a layer for a neuron: the last, or one from that of the head that it reads, or any in which heads can rest."""
    if part.last:
        return family.layers - 1
    return int(rng.integers(places[part.reads].layer if part.reads else family.flag_layer + 1, family.layers))


def _between(chain: Sequence[str], name: str, first: int, drawn: Mapping[str, tuple[int, int]], layers: int) -> range:
    """Where a part of a chain may stand: after the one before it, with a layer left for each that follows."""
    place = chain.index(name)
    if place == 0:
        return range(first, first + 1)
    return range(drawn[chain[place - 1]][0] + 1, layers - (len(chain) - 1 - place))
