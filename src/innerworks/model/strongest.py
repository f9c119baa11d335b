"""The few strongest of many values, each kept as one whole number, so that nothing grows with the text.

An *entry* packs a value, the unit where it was seen, the window of that unit and the position in it, in this order: sorting
entries sorts values. Values keep eleven binary digits after the first (errors below 1/2000). There is one entry per unit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

EMPTY = torch.iinfo(torch.int64).min
VALUE, UNIT, WINDOW, POSITION = 20, 20, 12, 12  # bits
TURNED = 0x7FFFFFFF  # turns the bits of a negative number round, so that they grow with it


def pack(
    value: Float[Tensor, "*any"], unit: Int[Tensor, "*any"], window: Int[Tensor, "*any"], position: Int[Tensor, "*any"]
) -> Int[Tensor, "*any"]:
    """Entries of values at places."""
    bits = (value.float() + 0.0).view(torch.int32)  # + 0 makes of -0 a 0
    ordered = torch.where(bits < 0, bits ^ TURNED, bits).long() >> (32 - VALUE)
    window, position = window.clamp(max=2**WINDOW - 1), position.clamp(max=2**POSITION - 1)
    return (((((ordered << UNIT) | unit) << WINDOW) | window) << POSITION) | position


def join(held: Int[Tensor, "*any held"], more: Int[Tensor, "*any more"]) -> Int[Tensor, "*any held"]:
    """The strongest entries of both, as many as were held, the strongest first; of each unit only its strongest."""
    both = torch.cat([held, more], dim=-1).sort(dim=-1, descending=True).values
    unit = (both >> (WINDOW + POSITION)) & (2**UNIT - 1)
    seen = (unit[..., :, None] == unit[..., None, :]).tril(-1).any(dim=-1)
    return both.masked_fill(seen, EMPTY).topk(held.shape[-1], dim=-1).values


def join_new(held: Int[Tensor, "*any held"], more: Int[Tensor, "*any more"]) -> Int[Tensor, "*any held"]:
    """The same, faster, where all are of different units."""
    return torch.cat([held, more], dim=-1).topk(held.shape[-1], dim=-1).values


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What entries hold. unit is -1 where there is no entry; there the value is 0."""

    value: Float[np.ndarray, "*any"]
    unit: Int[np.ndarray, "*any"]
    window: Int[np.ndarray, "*any"]
    position: Int[np.ndarray, "*any"]


def unpack(entries: Int[Tensor, "*any"]) -> Unpacked:
    """Read entries."""
    there = entries != EMPTY
    ordered = ((entries >> (UNIT + WINDOW + POSITION)) << (32 - VALUE)).to(torch.int32)
    value = torch.where(ordered < 0, ordered ^ TURNED, ordered).view(torch.float32)
    unit = (entries >> (WINDOW + POSITION)) & (2**UNIT - 1)
    return Unpacked(
        value=torch.where(there, value, 0.0).numpy(force=True),
        unit=torch.where(there, unit, -1).int().numpy(force=True),
        window=((entries >> POSITION) & (2**WINDOW - 1)).short().numpy(force=True),
        position=(entries & (2**POSITION - 1)).short().numpy(force=True),
    )
