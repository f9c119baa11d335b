"""What lies between a query and a key besides two matrices? For rotary positions a rotation that depends on their distance.

A score is `q R_Δ kᵀ`, so a head with rotary positions has no one QK matrix but one for each distance Δ: `W_Q R_Δ W_Kᵀ`. Taking
`W_Q W_Kᵀ` for it would be right at distance 0 and silently wrong everywhere else.

1. The turn of each layer is the model's own: its rotary module's angles, applied by its family's function to a basis
   (`streaming.rotation`, which proves on the model at hand that keys at two places differ by exactly that turn).
2. Scores of weights are averaged over a fixed grid of distances: powers of two, as far as the model can look.
3. Models whose scores are no bilinear function of two streams at any distance (norms on queries and keys, soft caps) are refused,
   with the reason; what their heads compute has to be recorded instead.

Slopes over distance (ALiBi) add to a score what no content changes: there `W_Q W_Kᵀ` is the part that reads content.
Su et al. 2021, arXiv:2104.09864.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.errors import UnsupportedModel, UsageError
from innerworks.heads.streaming.rotation import Rotation, own_window, rotations
from innerworks.model import Model

DISTANCES = (1, 2, 4, 8, 16, 32, 64, 128)  # from query back to key, in tokens

Turns = Float[Tensor, "distance d_head d_head"]


def no_bilinear_scores(model: Model) -> str | None:
    """Why no scores of this model are bilinear in two streams, or None where they are (at each distance)."""
    cap = getattr(model.config, model.adapter.score_softcap, None) if model.adapter.score_softcap else None
    if any(model.part("query_norm", layer) is not None for layer in range(model.anatomy.layers)):
        return f"{model.name} norms its queries and keys after they are read, so no weights alone say how they score"
    return None if cap is None else f"{model.name} caps its scores softly at {cap}, so no weights alone say how they compare"


def rotary(model: Model) -> bool:
    """Are queries and keys of any layer rotated by their positions?"""
    return any(model.adapter.rotary(model.config, layer) for layer in range(model.anatomy.layers))


def turns(model: Model) -> list[Turns]:
    """For each layer, what turns a key as a query at each distance of the grid sees it: `score = q @ (k @ turn)`.

    One identity for layers that know no positions, or learned them. Raises UnsupportedModel where there is a
    `no_bilinear_scores`, or where the model's rotation is not known.
    """
    reason = no_bilinear_scores(model)
    if reason is not None:
        raise UnsupportedModel(f"{reason}. Record what heads compute: scores or pattern.")
    size = model.anatomy.d_head
    identity = torch.eye(size, device=model.device)
    if not rotary(model):
        return [identity[None]] * model.anatomy.layers
    limits = [limit for limit in (model.anatomy.max_positions, own_window(model)) if limit is not None]
    reach = min([DISTANCES[-1] + 1, *limits])
    try:
        found = rotations(model, reach)
    except UsageError as error:
        raise UnsupportedModel(f"How {model.name} rotates keys by distance cannot be read off: {error}") from error
    grid = [distance for distance in DISTANCES if distance < reach]
    return [
        identity[None] if turn is None else torch.stack([_turned(turn, identity, distance) for distance in grid])
        for turn in found
    ]


def _turned(turn: Rotation, identity: Tensor, distance: int) -> Float[Tensor, "d_head d_head"]:
    """Basis keys as a query `distance` tokens later sees them."""
    age = torch.full((len(identity),), distance, device=identity.device)
    return turn(identity[None, None], age)[0, 0]
