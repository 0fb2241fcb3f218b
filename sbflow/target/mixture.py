"""Mixtures of Gaussians with any covariances: π(x) = Σ_k w_k N(x; m_k, S_k), normalised."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.tensor import randn_like

__all__ = ["GaussianMixture", "Mixture2D"]


class GaussianMixture(Target):
    """Normalised mixture of k Gaussians on R^d.

    The constants keep the dtype of ``means`` where that is a floating tensor and have the default dtype otherwise.

    Attributes:
        means: component means ``[k, d]``.
        covariances: component covariances ``[k, d, d]``.
        weights: component probabilities ``[k]``, summing to 1.

    Args:
        means: component means ``[k, d]``.
        covariances: symmetric positive definite matrices ``[k, d, d]``.
        weights: positive probabilities ``[k]`` that sum to 1.

    Raises:
        ValueError: the shapes disagree, a covariance is not symmetric positive definite, or the weights are no
            probabilities.
    """

    log_normalizer = 0.0
    means: Tensor
    covariances: Tensor
    weights: Tensor
    scale_trils: Tensor
    whiteners: Tensor
    log_scales: Tensor

    def __init__(
        self,
        means: Sequence[Sequence[float]] | Float[Tensor, "k d"],
        covariances: Sequence[Sequence[Sequence[float]]] | Float[Tensor, "k d d"],
        weights: Sequence[float] | Float[Tensor, " k"],
    ) -> None:
        super().__init__()
        floating = isinstance(means, Tensor) and means.is_floating_point()
        dtype = means.dtype if isinstance(means, Tensor) and floating else torch.get_default_dtype()
        # float64: the factors of nearly singular covariances are rounded once, at the end
        m, s, w = (torch.as_tensor(v, dtype=torch.float64) for v in (means, covariances, weights))
        _check_shapes(m, s, w)
        scale_trils = _cholesky(s)
        self.dim = m.shape[1]
        constants = {
            "means": m,
            "covariances": s,
            "weights": w / w.sum(),
            "scale_trils": scale_trils,
            "whiteners": torch.linalg.inv(scale_trils),
            "log_scales": (w / w.sum()).log() - scale_trils.diagonal(dim1=1, dim2=2).log().sum(1),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.to(dtype), persistent=False)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log π(x) in nats."""
        return self._components(x)[0].logsumexp(1)

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log π(x) and ∇ log π(x), the average of the component scores under the posterior of the component."""
        log_joint, residuals = self._components(x)
        responsibilities = log_joint.softmax(1)
        score = -torch.einsum("nk,kij,nki->nj", responsibilities, self.whiteners.to(x.dtype), residuals)
        return log_joint.logsumexp(1), score

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Exact samples."""
        # drawn where the generator lives, as in randn_like: the same numbers on any device
        weights = self.weights if generator is None else self.weights.to(generator.device)
        component = torch.multinomial(weights, n, replacement=True, generator=generator).to(self.weights.device)
        noise = randn_like(self.means.new_empty(n, self.dim), generator)
        return self.means[component] + torch.einsum("nij,nj->ni", self.scale_trils[component], noise)

    def _components(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k d"]]:
        """Log joint density of x and each component, and the residuals in units of the component's scale."""
        centred = x[:, None] - self.means.to(x.dtype)
        residuals = torch.einsum("kij,nkj->nki", self.whiteners.to(x.dtype), centred)
        log_scales = self.log_scales.to(x.dtype) - 0.5 * self.dim * math.log(2 * math.pi)
        return log_scales - 0.5 * residuals.square().sum(2), residuals


class Mixture2D(GaussianMixture):
    """Six Gaussians in the plane, symmetric under exchange of the coordinates.

    Three Gaussians of equal weight are averaged with their mirror images, of which two narrow ones lie far apart.

    References:
        Phillips et al., Particle Denoising Diffusion Sampler, ICML 2024.
    """

    def __init__(self) -> None:
        means = torch.tensor([[3.0, 0.0], [-2.5, 0.0], [2.0, 3.0]], dtype=torch.float64)
        narrow, tilted = [[0.7, 0.0], [0.0, 0.05]], [[1.0, 0.95], [0.95, 1.0]]
        covariances = torch.tensor([narrow, narrow, tilted], dtype=torch.float64)
        super().__init__(
            torch.cat([means, means.flip(1)]).to(torch.get_default_dtype()),
            torch.cat([covariances, covariances.flip(1, 2)]),
            torch.full((6,), 1 / 6, dtype=torch.float64),
        )


def _check_shapes(means: Tensor, covariances: Tensor, weights: Tensor) -> None:
    if means.ndim != 2 or 0 in means.shape or not means.isfinite().all():
        raise ValueError(f"means must be finite and of shape [k, d], got {list(means.shape)}")
    k, d = means.shape
    if covariances.shape != (k, d, d):
        raise ValueError(f"covariances must have shape {[k, d, d]} to match means, got {list(covariances.shape)}")
    if weights.shape != (k,):
        raise ValueError(f"weights must have shape {[k]} to match means, got {list(weights.shape)}")
    if not (weights > 0).all() or abs(weights.sum().item() - 1) > 1e-5:
        raise ValueError(f"weights must be positive and sum to 1, got {weights.tolist()}")


def _cholesky(covariances: Float[Tensor, "k d d"]) -> Float[Tensor, "k d d"]:
    factors, info = torch.linalg.cholesky_ex(covariances)
    symmetric = torch.allclose(covariances, covariances.mT, rtol=1e-5, atol=0.0)
    if info.any() or not symmetric or not covariances.isfinite().all():
        raise ValueError(f"covariances must be symmetric positive definite, got {covariances.tolist()}")
    return factors
