"""The exact potential of a Gaussian mixture, one Gaussian included: the oracle of the tests."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.potential.base import Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import GaussianMixture
from sbflow.whitening import Affine

__all__ = ["MixturePotential"]


class MixturePotential(Potential):
    """Closed form of log g_t for γ = Z Σ_k w_k N(μ_k, S_k).

    The noised target is Σ_k w_k N(√ᾱ μ_k, ᾱ S_k + λ I), so g_t is its ratio to N(0, I), times Z. With this potential
    only the discretisation of time is left as an error.

    Args:
        means: component means ``[k, d]``.
        covariances: component covariances ``[k, d, d]``.
        weights: component weights ``[k]``, summing to 1.
        process: noising process.
        log_z: log Z of γ.
    """

    eigenvalues: Tensor
    basis: Tensor
    means: Tensor
    log_mixture_weights: Tensor

    def __init__(
        self,
        means: Float[Tensor, "k d"],
        covariances: Float[Tensor, "k d d"],
        weights: Float[Tensor, " k"],
        process: OrnsteinUhlenbeck,
        log_z: float = 0.0,
    ) -> None:
        super().__init__()
        # one eigenbasis per component diagonalises ᾱ S + λ I for every t
        eigenvalues, basis = torch.linalg.eigh(covariances)
        self.register_buffer("eigenvalues", eigenvalues)
        self.register_buffer("basis", basis)
        self.register_buffer("means", torch.einsum("kde,kd->ke", basis, means))
        self.register_buffer("log_mixture_weights", weights.log())
        self.process = process
        self.log_z = log_z

    @classmethod
    def of(cls, target: GaussianMixture, affine: Affine, process: OrnsteinUhlenbeck) -> "MixturePotential":
        """Exact potential of a mixture target in whitened coordinates, in the dtype of ``affine``.

        Args:
            target: Gaussian mixture, or one Gaussian, in its own coordinates.
            affine: the whitening.
            process: noising process.
        """
        dtype = affine.loc.dtype
        # columns of the components' factors, moved like differences of points
        factors = torch.stack([affine.inverse(affine.loc + tril.mT).mT for tril in target.scale_trils.to(dtype)])
        return cls(affine.inverse(target.means.to(dtype)), factors @ factors.mT, target.weights.to(dtype), process, 0.0)

    def log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, " n"]:
        """See the class."""
        alpha_bar = self.process.schedule.alpha_bar(t).to(z.dtype).reshape(-1, 1, 1)
        variance = alpha_bar * self.eigenvalues + (1 - alpha_bar)
        rotated = torch.einsum("kde,nd->nke", self.basis, z)
        mahalanobis = (rotated - alpha_bar.sqrt() * self.means) ** 2 / variance
        components = self.log_mixture_weights - 0.5 * (mahalanobis + variance.log()).sum(-1)
        return self.log_z + torch.logsumexp(components, -1) + 0.5 * (z**2).sum(-1)
