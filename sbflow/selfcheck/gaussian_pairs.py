r"""Jointly Gaussian end points and what follows from them without a sample.

A Brownian reference of variance ε per unit of time, conditioned on the ends (X_0, X_1) of a Gaussian coupling, has

.. math:: X_u = (1-u) X_0 + u X_1 + \sqrt{ε u (1-u)} Z,

so that end point and state are jointly Gaussian and the drift that bridge matching converges to,
E[(X_1 − X_u) / (1 − u) | X_u], is linear. Euler–Maruyama with a linear drift keeps the laws Gaussian: its moments obey
a recursion.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["GaussianPairs", "Moments", "fixed_point"]


class Moments(NamedTuple):
    """Law of a simulated end, jointly with its start.

    Attributes:
        mean: of the end ``[d]``.
        covariance: of the end ``[d, d]``.
        cross: Cov(start, end) ``[d, d]``.
    """

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]
    cross: Float[Tensor, "d d"]


class GaussianPairs(NamedTuple):
    """Start and end of the pairs that one direction learns from; all in float64.

    Attributes:
        mean0: mean of the start ``[d]``.
        mean1: mean of the end ``[d]``.
        cov0: covariance of the start ``[d, d]``.
        cov1: covariance of the end ``[d, d]``.
        cross: Cov(start, end) ``[d, d]``.
    """

    mean0: Float[Tensor, " d"]
    mean1: Float[Tensor, " d"]
    cov0: Float[Tensor, "d d"]
    cov1: Float[Tensor, "d d"]
    cross: Float[Tensor, "d d"]

    def to(self, device: torch.device) -> "GaussianPairs":
        """The same on another device."""
        return GaussianPairs(*(part.to(device) for part in self))

    def slope(self, epsilon: float, u: Float[Tensor, " n"]) -> Float[Tensor, "n d d"]:
        """Matrix of the drift at each time: Cov((X_1 − X_u) / (1 − u), X_u) Cov(X_u)⁻¹, finite at u = 1 too."""
        u = u[:, None, None]
        eye = torch.eye(len(self.mean0), dtype=u.dtype, device=u.device)
        both = self.cross + self.cross.mT + epsilon * eye
        state = (1 - u) ** 2 * self.cov0 + u**2 * self.cov1 + u * (1 - u) * both
        ahead = u * self.cov1 - (1 - u) * self.cov0 + (1 - u) * self.cross.mT - u * (self.cross + epsilon * eye)
        return torch.linalg.solve(state, ahead, left=False)

    def drift(self, epsilon: float, x: Float[Tensor, "n d"], u: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Drift that bridge matching on these pairs converges to; at one time per sample, or at one for all ``[1]``."""
        centred = x - torch.lerp(self.mean0, self.mean1, u[:, None])
        return self.mean1 - self.mean0 + (self.slope(epsilon, u) @ centred[..., None])[..., 0]

    def euler(
        self, epsilon: float, num_steps: int, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]
    ) -> Moments:
        """Moments of Euler–Maruyama with that drift, from a start N(mean, covariance)."""
        gain = eye = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        start = covariance
        times = torch.arange(num_steps, dtype=mean.dtype, device=mean.device) / num_steps
        for u, slope in zip(times, self.slope(epsilon, times), strict=True):
            factor = eye + slope / num_steps
            mean = mean + self.drift(epsilon, mean[None], u[None])[0] / num_steps
            covariance = factor @ covariance @ factor.mT + epsilon / num_steps * eye
            gain = factor @ gain
        return Moments(mean, covariance, start @ gain.mT)


def fixed_point(pairs: GaussianPairs, epsilon: float, num_steps: int, iterations: int) -> tuple[Moments, Moments]:
    """Forward and backward law of the flow whose every regression is exact, after so many iterations.

    Every direction learns from the ends that the other one generated, paired with the data they were generated from.

    Args:
        pairs: data of both sides; their covariance is that of the coupling to begin with.
        epsilon: variance of the reference per unit of time.
        num_steps: Euler–Maruyama steps.
        iterations: simulations with a regression before each.
    """
    data = pairs
    forward, backward = data, GaussianPairs(data.mean1, data.mean0, data.cov1, data.cov0, data.cross.mT)
    for _ in range(iterations):
        end1 = forward.euler(epsilon, num_steps, data.mean0, data.cov0)
        end0 = backward.euler(epsilon, num_steps, data.mean1, data.cov1)
        forward = GaussianPairs(end0.mean, data.mean1, end0.covariance, data.cov1, end0.cross.mT)
        backward = GaussianPairs(end1.mean, data.mean0, end1.covariance, data.cov0, end1.cross.mT)
    return end1, end0
