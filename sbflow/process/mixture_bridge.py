r"""A Schrödinger bridge known in closed form: its end potential is a mixture of Gaussians.

Choose a potential :math:`v(y) = Σ_k w_k N(y; μ_k, Σ_k)` and any law π₀, and let X1 given X0 = x have the density
proportional to v(y) exp(−‖y − x‖² / 2ε). This plan is the entropic optimal one between π₀ and the law π₁ of its ends,
by the form of its density, so a problem with a known answer needs no solver (Gushchin et al. 2023, "Building the Bridge
of Schrödinger"). It is a mixture itself, and so is the heat flow of v, whose logarithm the drift climbs:

.. math:: X_1 | X_0 = x \sim Σ_k a_k(x) N(P_k (x/ε + Σ_k^{-1} μ_k), P_k), \quad P_k = (I/ε + Σ_k^{-1})^{-1}, \quad
    a_k(x) ∝ w_k N(x; μ_k, Σ_k + ε I), \quad f(t, x) = ε ∇ \log Σ_k w_k N(x; μ_k, Σ_k + ε (1-t) I).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.tensor import randn_like

__all__ = ["MixtureBridge"]


class MixtureBridge:
    """The conditional plan and the forward drift of a mixture potential.

    Constants are kept in double precision on the CPU, results have the dtype and device of what is asked about.

    Args:
        log_weights: log w_k up to a common constant ``[k]``.
        means: μ_k ``[k, d]``.
        covariances: Σ_k, symmetric and positive definite ``[k, d, d]``.
        epsilon: variance of the reference per unit of time, positive.

    Raises:
        ValueError: epsilon is not positive, or a covariance is not symmetric and positive definite.
    """

    def __init__(
        self,
        log_weights: Float[Tensor, " k"],
        means: Float[Tensor, "k d"],
        covariances: Float[Tensor, "k d d"],
        epsilon: float,
    ) -> None:
        if not 0 < epsilon < float("inf"):
            raise ValueError(f"epsilon must be positive and finite, got {epsilon}")
        self.epsilon = epsilon
        self.log_weights, self.means, covariances = (x.double().cpu() for x in (log_weights, means, covariances))
        # one basis per component makes every Σ_k + c I a diagonal
        self.scales, self.bases = torch.linalg.eigh(covariances)
        if not torch.allclose(covariances, covariances.mT) or self.scales.min() <= 0:
            raise ValueError("covariances must be symmetric and positive definite")

    def log_potential(self, x: Float[Tensor, "n d"], t: float) -> Float[Tensor, " n"]:
        """Log of v after the remaining time of the heat flow, log Σ_k w_k N(x; μ_k, Σ_k + ε (1 − t) I)."""
        return self._log_terms(x, t)[0].logsumexp(1)

    def responsibilities(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """a_k(x): the probability that the plan sends x through component k."""
        return self._log_terms(x, 0.0)[0].softmax(1)

    def drift(self, x: Float[Tensor, "n d"], t: float) -> Float[Tensor, "n d"]:
        """Drift of the bridge at time t, 0 <= t <= 1: ε times the gradient of `log_potential`."""
        log_terms, rotated, scales = self._log_terms(x, t)
        pulls = torch.einsum("kde,nke->nkd", self.bases.to(x), rotated / scales)
        return -self.epsilon * torch.einsum("nk,nkd->nd", log_terms.softmax(1), pulls)

    def component_laws(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n k d"], Float[Tensor, "k d d"]]:
        """Means and covariances of X1 given X0 = x and the component."""
        bases, shrink = self.bases.to(x), (self.scales / (self.scales + self.epsilon)).to(x)
        _, rotated, _ = self._log_terms(x, 0.0)
        means = self.means.to(x) + torch.einsum("kde,nke->nkd", bases, shrink * rotated)
        return means, (bases * (self.epsilon * shrink)[:, None]) @ bases.mT

    def conditional_moments(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d d"]]:
        """Mean and covariance of X1 given X0 = x."""
        weights, (means, covariances) = self.responsibilities(x), self.component_laws(x)
        mean = torch.einsum("nk,nkd->nd", weights, means)
        centred = means - mean[:, None]
        spread = torch.einsum("nk,nkd,nke->nde", weights, centred, centred)
        return mean, spread + torch.einsum("nk,kde->nde", weights, covariances)

    def sample(self, x: Float[Tensor, "n d"], generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Draw one X1 for each X0 = x, exactly."""
        weights, (means, covariances) = self.responsibilities(x), self.component_laws(x)
        device = x.device if generator is None else generator.device
        component = torch.multinomial(weights.to(device), 1, generator=generator)[:, 0].to(x.device)
        roots = torch.linalg.cholesky(covariances)
        # over the few components, not over the samples: a root for each sample would take n d² numbers
        moved = torch.stack([randn_like(x, generator) @ root.T for root in roots], dim=1) + means
        return moved[torch.arange(len(x), device=x.device), component]

    def _log_terms(self, x: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """Log w_k N(x; μ_k, Σ_k + ε (1 − t) I), x − μ_k in the component's basis, and the variances there."""
        scales = (self.scales + self.epsilon * (1 - t)).to(x)
        rotated = torch.einsum("kde,nkd->nke", self.bases.to(x), x[:, None] - self.means.to(x))
        quadratic = 0.5 * (rotated**2 / scales + scales.log()).sum(2)
        constant = 0.5 * x.shape[1] * math.log(2 * math.pi)
        return self.log_weights.to(x) - quadratic - constant, rotated, scales
