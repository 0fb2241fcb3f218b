r"""Potentials :math:`g_t`, the guidance of the particle sampler.

In whitened coordinates the reference law is N(0, I) and :math:`g_0(z) = \gamma(z) / N(z; 0, I)`. Under the stationary
reference, :math:`g_t(z) = E[g_0(X_0) | X_t = z]`, so that

* :math:`Z = E_{N(0, I)}[g_t]` for every t,
* :math:`\pi_t = g_t N(0, I) / Z` is the law of the noised target, with score :math:`\nabla \log g_t(z) - z`.

An approximation leaves the estimate of Z unbiased as long as it equals :math:`g_0` exactly at t = 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Potential"]


class Potential(nn.Module):
    """Approximation of log g_t; a subclass writes `log_g`, and `log_g_and_grad` where it has a cheaper way."""

    def log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, " n"]:
        """Log g_t(z) at time t, a scalar or one per particle ``[n]``."""
        raise NotImplementedError

    def log_g_and_grad(self, z: Float[Tensor, "n d"], t: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log g_t(z) and its gradient in z from one evaluation; by automatic differentiation unless overridden."""

        def total(z: Tensor) -> tuple[Tensor, Tensor]:
            log_g = self.log_g(z, t)
            return log_g.sum(), log_g

        grad, log_g = torch.func.grad(total, has_aux=True)(z)
        return log_g, grad
