"""Where the parts stand: a layer and a head for each, drawn at random, so that no detector can lean on an index."""

from dataclasses import dataclass

import numpy as np

from innerworks.phantoms.families import Family

DECOYS = ("fixed_gap", "punctuation", "local_window", "same_first_letter")
PLANTED = ("pair_previous", "induction", "lone_previous", "duplicate_token", "first_token", *DECOYS)
HELPER = "average"  # Llama's, in layer 0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a head is; prints as `L1H3`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"


def draw_places(family: Family, rng: np.random.Generator) -> dict[str, Place]:
    """Draw a layer and a head for every part, each with a key head of its own.

    The pair keeps its order, and all come after the layer that makes the resting place, but for the helper in layer 0.
    """
    shared = family.heads // family.kv_heads
    later = range(family.flag_layer + 1, family.layers)
    free = [(layer, kv_head) for layer in later for kv_head in range(family.kv_heads)]
    first = int(rng.choice(later[:-1]))  # layer of the pair's previous-token head
    drawn = {HELPER: (0, int(rng.integers(family.kv_heads)))}
    for name in PLANTED:
        layers = {"pair_previous": range(first, first + 1), "induction": range(first + 1, family.layers)}.get(name, later)
        allowed = [slot for slot in free if slot[0] in layers]
        drawn[name] = allowed[rng.integers(len(allowed))]
        free.remove(drawn[name])
    head = {name: kv_head * shared + int(rng.integers(shared)) for name, (_, kv_head) in drawn.items()}
    return {name: Place(layer=layer, head=head[name]) for name, (layer, _) in drawn.items()}
