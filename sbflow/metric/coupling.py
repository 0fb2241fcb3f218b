"""The Schrödinger bridge between two Gaussians in closed form, and the error of a learned one against it.

For π₀ = N(m0, S0), π₁ = N(m1, S1) and a Brownian reference of variance ε per unit of time, the bridge couples the ends
by X1 | X0 = x ~ N(m1 + K (x − m0), ε K), where K is the positive definite solution of K S0 K + ε K = S1.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.metric.protocol import Direction, Translator, TwoSided

__all__ = ["GaussianCoupling", "gaussian_bridge"]


@runtime_checkable
class _Epsilon(Protocol):
    epsilon: float


@runtime_checkable
class BridgeTranslator(Translator, Protocol):
    """A translation that knows its reference process."""

    @property
    def process(self) -> _Epsilon:
        """Brownian motion of variance ``epsilon`` per unit of time."""


@runtime_checkable
class GaussianPair(TwoSided, Protocol):
    """Gaussian data of known moments; means are not needed, for the coupling does not depend on them."""

    cov0: Tensor
    cov1: Tensor


class GaussianCoupling:
    """Compares the coupling and the marginals that a module generates with the closed form.

    All moments are empirical, over ``num_samples`` test samples x and their translations x̂. Keys, for the forward
    direction; those of the backward direction end in ``_backward``:

    - ``test/cross_covariance_error``: ‖Ĉ − C‖ / ‖C‖ in the Frobenius norm, with C = Cov(X0, X1).
    - ``test/cross_covariance_mean``: mean of the diagonal of Ĉ.
    - ``test/variance_mean``: mean variance of the generated end over its coordinates.
    - ``test/cross_covariance_mean_exact`` (no suffix: it is the same both ways), ``test/variance_mean_exact``.

    Args:
        num_samples: test samples of each end, at least 2; the relative error of a moment is about
            ``num_samples ** -0.5``.
        num_steps: steps of the sampler, whose discretisation is part of what is measured.
        seed: seed of the sampler's noise.
    """

    def __init__(self, *, num_samples: int = 10_000, num_steps: int = 30, seed: int = 0) -> None:
        for name, value, least in (("num_samples", num_samples, 2), ("num_steps", num_steps, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.num_samples = num_samples
        self.num_steps = num_steps
        self.seed = seed

    def __call__(self, module: BridgeTranslator, data: GaussianPair) -> dict[str, float]:
        """Translate both ends of the test split and compare moments."""
        test = data.split("test")
        exact = gaussian_bridge(data.cov0, data.cov1, module.process.epsilon)
        forward = self._measure(module, "forward", test.x0, exact, data.cov1)
        backward = self._measure(module, "backward", test.x1, exact.T, data.cov0)
        metrics = forward | {f"{name}_backward": value for name, value in backward.items()}
        metrics["cross_covariance_mean_exact"] = exact.diagonal().mean().item()
        return {f"test/{name}": value for name, value in metrics.items()}

    def _measure(
        self, module: Translator, direction: Direction, x: Tensor, exact: Tensor, target: Tensor
    ) -> dict[str, float]:
        x = x[: self.num_samples]
        # apart from the small seeds that data are drawn with: noise from the stream of the samples correlates with them
        generator = torch.Generator().manual_seed(2**31 + self.seed)
        y = module.translate(x.to(module.device), direction, num_steps=self.num_steps, generator=generator).cpu()
        dim = x.shape[1]
        joint = torch.cat([x, y], dim=1).double().T.cov()
        cross = joint[:dim, dim:]
        return {
            "cross_covariance_error": ((cross - exact).norm() / exact.norm()).item(),
            "cross_covariance_mean": cross.diagonal().mean().item(),
            "variance_mean": joint.diagonal()[dim:].mean().item(),
            "variance_mean_exact": target.double().diagonal().mean().item(),
        }


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


def _power(matrix: Tensor, exponent: float, name: str) -> Float[Tensor, "d d"]:
    matrix = matrix.double().cpu()
    values, vectors = torch.linalg.eigh(matrix)
    if not torch.allclose(matrix, matrix.T) or values[0] <= 0:
        raise ValueError(f"{name} must be symmetric and positive definite, got smallest eigenvalue {values[0]:.3g}")
    return (vectors * values**exponent) @ vectors.T
