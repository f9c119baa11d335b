"""Where neurons fire, how far do they move the logits they are said to move? Direct effects in context, per document.

1. A neuron *fires* where its activation is more than two standard deviations from its mean (both of the discovery half).
2. There it adds `(a - mean) w_out / scale` to what the final norm lets through, with the scale held at what it was. Averaged over
   the rows where it fires, one number per document; a document in which it never fires says nothing.
3. Times how far a unit of that moves the logits of some tokens: a direct effect, in logits.

What it does not do: see what later layers make of it, or how often the tokens really follow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from innerworks.model import Model
from innerworks.neurons.means import NeuronReference
from innerworks.sites import Site
from innerworks.text import TextBatch

FIRES = 2.0  # standard deviations


@dataclass(frozen=True, kw_only=True)
class Fired:
    """What some neurons add where they fire, per document, in units of `w_out` after the final norm; NaN where they never do.

    signed: the mean; size: the mean absolute value.
    """

    signed: Float[np.ndarray, "unit neuron"]
    size: Float[np.ndarray, "unit neuron"]


@torch.no_grad()
def fired(
    model: Model,
    batches: Sequence[TextBatch],
    reference: NeuronReference,
    neurons: Int[np.ndarray, "neuron 2"],
    *,
    step: Callable[[], None] = lambda: None,
) -> Fired:
    """Read texts and average, per document, what each of some neurons (layer, index) adds where it fires."""
    layers = sorted(set(neurons[:, 0].tolist()))
    signed, size = ([np.full((0, len(neurons)), np.nan, np.float32)] for _ in range(2))
    for batch in (one.to(model.device) for one in batches):
        run = model.run(
            batch.tokens,
            mask=batch.mask,
            record=["norm_scale", *(Site(layer=layer, kind="neurons") for layer in layers)],
            logits="none",
        )
        both = np.full((2, len(batch.tokens), len(neurons)), np.nan, np.float32)
        rows = batch.mask.clone()
        rows[:, 0] = False
        for layer in layers:
            here = np.flatnonzero(neurons[:, 0] == layer)
            activation, scale = run[f"L{layer}.neurons"], run["norm_scale"].float()
            index, device = torch.from_numpy(neurons[here, 1]), activation.device
            mean = reference.mean.values["neurons"][layer][index].to(device)
            spread = torch.from_numpy(reference.spread[layer]).float()[index].to(device)
            away = activation[..., index.to(device)].float() - mean
            fires = (away.abs() > FIRES * spread) & rows[..., None].to(device)
            added = torch.where(fires, away / scale[..., None].to(device), 0.0)
            count = fires.sum(dim=1).float()  # 0 / 0 is NaN: it never fires there
            both[0][:, here] = (added.sum(dim=1) / count).numpy(force=True)
            both[1][:, here] = (added.abs().sum(dim=1) / count).numpy(force=True)
        signed.append(both[0])
        size.append(both[1])
        step()
    return Fired(signed=np.concatenate(signed), size=np.concatenate(size))
