"""How far does a dimension stick out of all others in size? A robust z, and what it is held against.

1. The size of a dimension on a document: its root mean square over tokens.
2. `z = (size - median) / (1.4826 * median of |size - median|)`, both medians over the dimensions of the stream.
3. Null: the same z of directions drawn at random (Haar) in the same stream, the largest of them. A stream whose lengths lie in
   any one direction, or in few, has sizes along random directions that are half-normal at worst, of which hardly one in a
   million lies 8 such spreads out. So only what is large *along an axis* has a large z and a small null: the basis is singled
   out, as by a rotation it would not be.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DIRECTIONS = 128  # drawn at random, at most: as many as there are dimensions, where these are fewer
NORMAL = 1.4826  # standard deviations of a normal distribution, in median absolute deviations
SEED = 0  # of the directions, the same in every scan


def robust_z(sizes: Float[Tensor, "*some dimension"]) -> Float[Tensor, "*some dimension"]:
    """How many spreads does each size lie above the median size? NaN where more than half of the sizes are the same."""
    middle = sizes.median(dim=-1, keepdim=True).values
    spread = NORMAL * (sizes - middle).abs().median(dim=-1, keepdim=True).values
    return (sizes - middle) / torch.where(spread > 0, spread, torch.nan)


def directions(width: int) -> Float[Tensor, "width direction"]:
    """Orthonormal directions, uniform over all such sets (QR of a Gaussian; Stewart 1980)."""
    drawn = torch.randn(width, min(width, DIRECTIONS), generator=torch.Generator().manual_seed(SEED))
    q, r = torch.linalg.qr(drawn)
    return q * r.diagonal().sign()


def root_mean_squares(
    values: Float[Tensor, "text seq dimension"], rows: Bool[Tensor, "text seq"]
) -> Float[Tensor, "text dimension"]:
    """The size of each dimension over some tokens of each text; zero for a text without any."""
    weights = rows.to(values)
    count = weights.sum(dim=1, keepdim=True).clamp(min=1)
    return (torch.einsum("tsd,ts->td", values.square(), weights) / count).sqrt()
