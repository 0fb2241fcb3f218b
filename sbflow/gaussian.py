"""The isotropic Gaussian that every stochastic step and every bridge returns."""

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from sbflow.tensor import Generators, expand_to, flat_sum, randn_like

__all__ = ["Gaussian"]


class Gaussian(NamedTuple):
    """Law N(mean, std² I) of each sample in a batch.

    A step returns this law and not a draw from it, so that sampling, path densities, importance weights and tests all
    use one object.

    Attributes:
        mean: one mean per sample, shape ``[n, *event]``.
        std: standard deviation, a scalar or one per sample ``[n]``; zero makes the law a point mass that can be
            sampled but has no density.
    """

    mean: Float[Tensor, "n *event"]
    std: Tensor

    def sample(self, generator: Generators = None) -> Float[Tensor, "n *event"]:
        """Draw one sample per row."""
        return self.mean + expand_to(self.std, self.mean) * randn_like(self.mean, generator)

    def log_prob(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, " n"]:
        """Log density at ``x``, in nats, summed over the event."""
        dim = self.mean[0].numel()
        z = (x - self.mean) / expand_to(self.std, self.mean)
        return -0.5 * flat_sum(z**2) - dim * (self.std.log() + 0.5 * math.log(2 * math.pi))
