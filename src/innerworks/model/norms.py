"""What a norm does, taken apart: it divides the stream by one number per token, and the rest is linear.

`norm(x) = gain * centred(x) / scale(x) + bias`. With the scale held fixed, a norm maps a sum of parts to the sum of what it
makes of the parts; every attribution to the logits rests on that.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from innerworks.errors import UnsupportedModel


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A LayerNorm or RMSNorm of a model: its gain and bias, whether it subtracts the mean, and its epsilon."""

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"] | None
    centred: bool
    epsilon: float

    @classmethod
    def of(cls, module: nn.Module) -> "Norm":
        """Read a norm off its module. Raises UnsupportedModel for what is neither LayerNorm nor RMSNorm."""
        if isinstance(module, nn.LayerNorm):
            gain = torch.ones(module.normalized_shape) if module.weight is None else module.weight.detach()
            bias = None if module.bias is None else module.bias.detach()
            return cls(gain=gain, bias=bias, centred=True, epsilon=module.eps)
        weight = getattr(module, "weight", None)
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if "RMSNorm" not in type(module).__name__ or not isinstance(weight, Tensor) or epsilon is None:
            raise UnsupportedModel(f"{type(module).__name__} is neither a LayerNorm nor an RMSNorm that we know how to read.")
        with torch.no_grad():  # some hold the gain, some hold the gain less one: ask the module itself
            gain = type(module).forward(module, torch.ones_like(weight, dtype=torch.float32)) * (1 + epsilon) ** 0.5
        return cls(gain=gain.to(weight.dtype), bias=None, centred=False, epsilon=epsilon)

    def scale(self, stream: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """What is this stream divided by? Its standard deviation (LayerNorm) or root mean square (RMSNorm), always float32."""
        wide = self._centre(stream.to(torch.promote_types(stream.dtype, torch.float32)))
        return (wide.square().mean(dim=-1) + self.epsilon).sqrt()

    def linear(
        self, parts: Float[Tensor, "*part d_model"], scale: Float[Tensor, "*some"] | float = 1.0
    ) -> Float[Tensor, "*part d_model"]:
        """What does the norm make of parts of a stream whose scale is held fixed? No bias: it belongs to no part."""
        divisor = scale[..., None] if isinstance(scale, Tensor) else scale
        return self._centre(parts) * self.gain.to(parts) / divisor

    def _centre(self, stream: Tensor) -> Tensor:
        return stream - stream.mean(dim=-1, keepdim=True) if self.centred else stream


def rescaled(norm: Norm, output: Tensor, scale: Tensor, wanted: Tensor) -> Tensor:
    """What a norm would have returned, had it divided by `wanted` instead of `scale`."""
    factor = (scale / wanted)[..., None]
    bias = 0.0 if norm.bias is None else norm.bias.to(output)
    return (output + (output - bias) * (factor - 1)).to(output.dtype)  # so that a factor of one changes nothing at all
