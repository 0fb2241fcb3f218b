r"""Products of powers of densities, guided by the potentials of their factors.

Of samplers that share one whitening, :math:`\prod_i \pi_{i,t}^{a_i} \propto \prod_i g_{i,t}^{a_i} \, N(0, I / A)` with
:math:`A = \sum_i a_i`: tempering is one factor, a product the exponents (1, 1), guidance the exponents (1 − w, w).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.potential.base import Potential

__all__ = ["GeometricPotential", "StandardisedPotential", "check_exponents"]


def check_exponents(exponents: Sequence[float], num_factors: int) -> tuple[float, ...]:
    """One exponent for each factor, with a positive sum.

    Raises:
        ValueError: not as many as factors, one that is zero or not finite, or a sum that is not positive.
    """
    checked = tuple(float(a) for a in exponents)
    if len(checked) != num_factors or not checked:
        raise ValueError(f"exponents must be one number for each of {num_factors} factors, got {list(checked)}")
    if not all(math.isfinite(a) and a != 0 for a in checked) or not sum(checked) > 0:
        raise ValueError(f"exponents must be finite, not 0, and have a positive sum, got {list(checked)}")
    return checked


class GeometricPotential(Potential):
    """log g_t(z) = Σ_i a_i log ĝ_{i,t}(z), the potential of Π_i π_i^{a_i} against N(0, I / A).

    Exact at t = 0 if its factors are. With these potentials the Particle Denoising Diffusion Sampler estimates the
    integral of the product without bias; the correctors of Skreta et al. 2025 know scores alone. This density form is
    our own derivation.

    Attributes:
        total: A = Σ_i a_i.

    Args:
        potentials: of the factors, in the same whitened coordinates and for the same process.
        exponents: a_i, of any sign but with a positive sum; whether the product can be integrated is not checked.

    Raises:
        ValueError: see `check_exponents`.

    References:
        Skreta et al., "Feynman-Kac Correctors in Diffusion: Annealing, Guidance, and Product of Experts", 2025.
    """

    def __init__(self, potentials: Sequence[Potential], exponents: Sequence[float]) -> None:
        super().__init__()
        self.exponents = check_exponents(exponents, len(potentials))
        self.total = sum(self.exponents)
        self.potentials = tuple(potentials)
        # registered too, so that they move and are saved with this module
        self.factors = nn.ModuleList(potentials)

    def log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, " n"]:
        """See the class."""
        return self._product([factor.log_g(z, t) for factor in self.potentials])

    def log_g_and_grad(self, z: Float[Tensor, "n d"], t: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """See the class; each factor brings its own gradient."""
        log_g, grads = zip(*(factor.log_g_and_grad(z, t) for factor in self.potentials), strict=True)
        return self._product(log_g), torch.stack([a * grad for a, grad in zip(self.exponents, grads, strict=True)]).sum(
            0
        )

    def _product(self, log_g: Sequence[Float[Tensor, " n"]]) -> Float[Tensor, " n"]:
        """Σ a_i log ĝ_i; zero where a factor with a positive exponent is, whatever another is divided by."""
        powers = torch.stack([a * part for a, part in zip(self.exponents, log_g, strict=True)])
        return torch.where((powers == -torch.inf).any(0), -torch.inf, powers.sum(0))


class StandardisedPotential(Potential):
    r"""A geometric potential in units in which its reference is N(0, I), with the constant that makes Ẑ absolute.

    In y = √A z the process with σ = 1/√A becomes the one with σ = 1, so that sampler, Markov moves and tempering need
    not know of A: the whitening of the product is :math:`x = m + (L / \sqrt A) y`. Its integral is that of
    :math:`\prod_i \gamma_i^{a_i}` over x, by

    .. math:: \log g(y) = \log g(y / \sqrt A) + \tfrac d2 (1 - A) \log 2 \pi - \tfrac d2 \log A
        + (1 - A) \log |\det L|.

    Args:
        potential: the product, in the whitened coordinates of its factors.
        log_det: log |det L| of their whitening.
    """

    log_det: Tensor

    def __init__(self, potential: GeometricPotential, log_det: Tensor | float = 0.0) -> None:
        super().__init__()
        self.potential = potential
        self.register_buffer("log_det", torch.as_tensor(log_det))

    def log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, " n"]:
        """See the class."""
        return self.potential.log_g(z / self._root, t) + self._constant(z)

    def log_g_and_grad(self, z: Float[Tensor, "n d"], t: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """See the class."""
        log_g, grad = self.potential.log_g_and_grad(z / self._root, t)
        return log_g + self._constant(z), grad / self._root

    @property
    def _root(self) -> float:
        return self.potential.total**0.5

    def _constant(self, z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        total, d = self.potential.total, z.shape[-1]
        of_reference = 0.5 * d * ((1 - total) * math.log(2 * math.pi) - math.log(total))
        return (of_reference + (1 - total) * self.log_det).to(z.dtype)
