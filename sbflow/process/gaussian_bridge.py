r"""The Schrödinger bridge between two Gaussians in closed form.

For π₀ = N(m0, S0), π₁ = N(m1, S1) and a Brownian reference of variance ε per unit of time, the bridge couples the ends
by X1 | X0 = x ~ N(m1 + K (x − m0), ε K), where K is the positive definite solution of K S0 K + ε K = S1. With
C = S0 K its time marginals and its drift are

.. math:: S_t = (1-t)^2 S_0 + t^2 S_1 + t (1-t) (C + C^T + ε I), \qquad
    f(t, x) = m_1 - m_0 + [(1-t) (C^T - S_0) + t (S_1 - C) - ε t I] S_t^{-1} (x - m_t).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.tensor import Generators, randn_like

__all__ = ["GaussianBridge", "gaussian_bridge"]


def gaussian_bridge(cov0: Float[Tensor, "d d"], cov1: Float[Tensor, "d d"], epsilon: float) -> Float[Tensor, "d d"]:
    r"""Covariance C = Cov(X0, X1) of the Schrödinger bridge between two Gaussians, in double precision.

    .. math:: C = S_0^{1/2} [(S_0^{1/2} S_1 S_0^{1/2} + ε²/4 I)^{1/2} − ε/2 I] S_0^{-1/2}

    Args:
        cov0: S0, symmetric and positive definite.
        cov1: S1, symmetric and positive definite.
        epsilon: variance of the reference per unit of time, at least 0 (optimal transport).

    Raises:
        ValueError: epsilon is negative or a covariance is not symmetric and positive definite.

    >>> round(gaussian_bridge(torch.eye(1), torch.eye(1), 1.0).item(), 7)
    0.618034
    """
    if not 0 <= epsilon < float("inf"):
        raise ValueError(f"epsilon must be at least 0 and finite, got {epsilon}")
    half = _power(cov0, 0.5, "cov0")
    inner = half @ _power(cov1, 1.0, "cov1") @ half + epsilon**2 / 4 * torch.eye(len(half), dtype=torch.float64)
    root = _power(inner, 0.5, "inner") - epsilon / 2 * torch.eye(len(half), dtype=torch.float64)
    return half @ root @ _power(cov0, -0.5, "cov0")


class GaussianBridge:
    """The bridge from N(mean0, cov0) to N(mean1, cov1); `reversed` is the same bridge read from its other end.

    Constants are kept in double precision on the CPU, results have the dtype and device of what is asked about.

    Attributes:
        cross: C = Cov(X0, X1) ``[d, d]``.
        gain: K, the regression matrix of X1 on X0 ``[d, d]``.

    Args:
        mean0: mean of π₀ ``[d]``.
        mean1: mean of π₁ ``[d]``.
        cov0: covariance of π₀, symmetric and positive definite.
        cov1: covariance of π₁, symmetric and positive definite.
        epsilon: variance of the reference per unit of time, at least 0.

    Raises:
        ValueError: see `gaussian_bridge`.
    """

    def __init__(
        self,
        mean0: Float[Tensor, " d"],
        mean1: Float[Tensor, " d"],
        cov0: Float[Tensor, "d d"],
        cov1: Float[Tensor, "d d"],
        epsilon: float,
    ) -> None:
        self.cross = gaussian_bridge(cov0, cov1, epsilon)
        self.mean0, self.mean1, self.cov0, self.cov1 = (x.double().cpu() for x in (mean0, mean1, cov0, cov1))
        self.epsilon = epsilon
        gain = torch.linalg.solve(self.cov0, self.cross)
        self.gain = (gain + gain.T) / 2

    def reversed(self) -> "GaussianBridge":
        """The bridge from π₁ to π₀, in its own clock."""
        return GaussianBridge(self.mean1, self.mean0, self.cov1, self.cov0, self.epsilon)

    def conditional_mean(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """E[X1 | X0 = x]; the covariance is ε K for every x."""
        return self.mean1.to(x) + (x - self.mean0.to(x)) @ self.gain.to(x)

    def sample(self, x: Float[Tensor, "n d"], generator: Generators = None) -> Float[Tensor, "n d"]:
        """Draw one X1 for each X0 = x."""
        root = torch.linalg.cholesky(self.epsilon * self.gain).to(x)
        return self.conditional_mean(x) + randn_like(x, generator) @ root.T

    def marginal(self, t: float) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
        """Mean and covariance of X_t."""
        s, eye = 1 - t, torch.eye(len(self.mean0), dtype=torch.float64)
        both = self.cross + self.cross.T + self.epsilon * eye
        return s * self.mean0 + t * self.mean1, s**2 * self.cov0 + t**2 * self.cov1 + s * t * both

    def drift(self, x: Float[Tensor, "n d"], t: float) -> Float[Tensor, "n d"]:
        """Drift of the bridge at time t, 0 <= t <= 1."""
        mean, covariance = self.marginal(t)
        past, future = self.cross.T - self.cov0, self.cov1 - self.cross
        noise = self.epsilon * t * torch.eye(len(mean), dtype=torch.float64)
        slope = torch.linalg.solve(covariance, ((1 - t) * past + t * future - noise).T).T
        return (self.mean1 - self.mean0).to(x) + (x - mean.to(x)) @ slope.to(x).T


def _power(matrix: Tensor, exponent: float, name: str) -> Float[Tensor, "d d"]:
    matrix = matrix.double().cpu()
    values, vectors = torch.linalg.eigh(matrix)
    if not torch.allclose(matrix, matrix.T) or values[0] <= 0:
        raise ValueError(f"{name} must be symmetric and positive definite, got smallest eigenvalue {values[0]:.3g}")
    return (vectors * values**exponent) @ vectors.T
