"""Does a head's match fall when an earlier head does, on the path to its keys, what it did on another text?

Wang et al. 2022, arXiv:2211.00593, algorithm 1, for the path from a sender to a receiver's keys:

1. Run the repeats as they are, and take what the sender read on another sequence of the same length (the next one).
2. Run them again from the sender's layer: every head writes what it wrote, only the sender what it would have on the other
   sequence. Norms and feed-forwards are computed anew, so the sender's output also arrives as they pass it on. The first
   position is left alone.
3. Let the receiver read the stream that comes of it for its keys, and nothing else, and read off its match.

It differs from a removal in two ways: the other text's output stands in the place of the mean, and feed-forwards between the two
take part. What it does not do: patch single positions.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from innerworks.heads.composition.removal import Bench
from innerworks.heads.composition.stopping import up_to
from innerworks.heads.harms import Head
from innerworks.model.edit import Edit, patch
from innerworks.sites import Site


def patched_streams(bench: Bench, sender: Head, layers: Sequence[int]) -> dict[int, Float[Tensor, "batch seq d_model"]]:
    """The streams that enter some layers above the sender, had it alone done what it did on the next sequence."""
    layer, head = sender
    clean, sites = bench.writing.clean, [Site(layer=at, kind="resid_pre") for at in sorted(set(layers))]
    other = clean[str(Site(layer=layer, head=head))].roll(-1, dims=0)
    between = range(layer + 1, max(layers))
    held: list[Edit] = [patch(Site(layer=at, kind="z"), clean[f"L{at}.z"]) for at in between]
    swapped = patch(Site(layer=layer, head=head, kind="z"), other, positions=None)
    streams = up_to(bench.model, clean, sites, [swapped, *held])
    return {at: stream for at, stream in zip(sorted(set(layers)), streams, strict=True)}
