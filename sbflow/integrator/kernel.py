"""Step kernels: from (x, t, s) to the Gaussian law of X_s given X_t = x.

A step returns its law, not a draw, so that the same kernel serves rollouts (sample it) and particle weights (evaluate
its density).
"""

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sbflow.gaussian import Gaussian
from sbflow.process.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sbflow.tensor import expand_to

__all__ = ["Coefficient", "Kernel", "VectorField", "euler_maruyama", "guidance_coefficient", "guided_denoising"]

VectorField = Callable[[Tensor, Tensor], Tensor]
"""(x ``[n, *event]``, t scalar or ``[n]``) -> ``[n, *event]``."""

Kernel = Callable[[Tensor, Tensor, Tensor], Gaussian]
"""(x ``[n, *event]``, t, s) -> law of X_s given X_t = x; s may lie on either side of t."""

Coefficient = Literal["lambda", "exponential", "tweedie"]
"""How far a denoising step follows the gradient of the potential; see `guidance_coefficient`."""


def euler_maruyama(drift: VectorField, diffusion: Callable[[Tensor], Tensor]) -> Kernel:
    """Explicit Euler–Maruyama step: mean x + (s − t) drift(x, t), standard deviation √|s − t| · diffusion(t).

    Args:
        drift: field in the direction of increasing time; with s < t it is followed backwards.
        diffusion: noise per square root of time.
    """

    def kernel(x: Float[Tensor, "n *event"], t: Tensor, s: Tensor) -> Gaussian:
        step = expand_to(s - t, x).to(x.dtype)
        return Gaussian(x + step * drift(x, t), (diffusion(t) * (s - t).abs().sqrt()).to(x.dtype))

    return kernel


def guidance_coefficient(a: Tensor, b: Tensor, coefficient: Coefficient) -> Tensor:
    """Weight c of ∇ log g in the mean a x + c ∇ log g of a reversed Ornstein–Uhlenbeck step with σ = 1.

    Args:
        a: √(1 − λ).
        b: √λ.
        coefficient: ``"lambda"`` is c = λ, the form of the PDDS authors' code; ``"exponential"`` is
            c = 2 (1 − √(1 − λ)), the exponential integrator of the guided reversal; ``"tweedie"`` is c = λ / √(1 − λ),
            which matches the mean of the exact reversal. They agree to first order in λ.

    Raises:
        ValueError: unknown coefficient.
    """
    if coefficient == "lambda":
        return b**2
    if coefficient == "exponential":
        return 2 * (1 - a)
    if coefficient == "tweedie":
        return b**2 / a
    raise ValueError(f"coefficient must be 'lambda', 'exponential' or 'tweedie', got {coefficient!r}")


def guided_denoising(process: OrnsteinUhlenbeck, grad_log_g: VectorField, coefficient: Coefficient) -> Kernel:
    """One step of the guided time reversal, from t down to s <= t: N(a x + c ∇ log g_t(x), b² I).

    Args:
        process: noising process, with σ = 1.
        grad_log_g: gradient of the log potential at (x, t).
        coefficient: see `guidance_coefficient`.
    """

    def kernel(x: Float[Tensor, "n *event"], t: Tensor, s: Tensor) -> Gaussian:
        a, b = (c.to(x.dtype) for c in process.transition(s, t))
        c = guidance_coefficient(a, b, coefficient)
        return Gaussian(expand_to(a, x) * x + expand_to(c, x) * grad_log_g(x, t), b)

    return kernel
