"""Step kernels: from (x, t, s) to the Gaussian law of X_s given X_t = x.

A step returns its law, not a draw, so that the same kernel serves rollouts (sample it) and particle weights (evaluate
its density). Its mean is affine in one costly field, and the field stands apart from the step: a sampler may evaluate
it for many states at once, or put a guess in its place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.gaussian import Gaussian
from sbflow.process.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sbflow.tensor import expand_to

__all__ = [
    "Coefficient",
    "FieldKernel",
    "Kernel",
    "Step",
    "VectorField",
    "euler_maruyama",
    "guidance_coefficient",
    "guided_denoising",
    "langevin",
]

VectorField = Callable[[Tensor, Tensor], Tensor]
"""(x ``[n, *event]``, t scalar or ``[n]``) -> ``[n, *event]``."""

Kernel = Callable[[Tensor, Tensor, Tensor], Gaussian]
"""(x ``[n, *event]``, t, s) -> law of X_s given X_t = x; s may lie on either side of t."""

Step = Callable[[Tensor, Tensor, Tensor, Tensor], Gaussian]
"""(x ``[n, *event]``, t, s, value of the field ``[n, *event]``) -> law of X_s; times scalar or ``[n]``."""

Coefficient = Literal["lambda", "exponential", "tweedie"]
"""How far a denoising step follows the gradient of the potential; see `guidance_coefficient`."""


@dataclass(frozen=True)
class FieldKernel:
    """A `Kernel` whose costly part is one evaluation of a field.

    Attributes:
        field: the costly call at (x, t).
        step: the law, given the value of the field: mean a x + b value, with a, b and the standard deviation functions
            of (t, s) alone. Each row may have times of its own.
    """

    field: VectorField
    step: Step

    def __call__(self, x: Float[Tensor, "n *event"], t: Tensor, s: Tensor) -> Gaussian:
        """Law of X_s given X_t = x."""
        return self.step(x, t, s, self.field(x, t))


def euler_maruyama(drift: VectorField, diffusion: Callable[[Tensor], Tensor]) -> FieldKernel:
    """Explicit Euler–Maruyama step: mean x + (s − t) drift(x, t), standard deviation √|s − t| · diffusion(t).

    Args:
        drift: field in the direction of increasing time; with s < t it is followed backwards.
        diffusion: noise per square root of time.
    """

    def step(x: Float[Tensor, "n *event"], t: Tensor, s: Tensor, value: Float[Tensor, "n *event"]) -> Gaussian:
        mean = x + expand_to(s - t, x).to(x.dtype) * value
        return Gaussian(mean, (diffusion(t) * (s - t).abs().sqrt()).to(x.dtype))

    return FieldKernel(drift, step)


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


def guided_denoising(process: OrnsteinUhlenbeck, grad_log_g: VectorField, coefficient: Coefficient) -> FieldKernel:
    """One step of the guided time reversal, from t down to s <= t: N(a x + c ∇ log g_t(x), b² I).

    Args:
        process: noising process, with σ = 1.
        grad_log_g: gradient of the log potential at (x, t).
        coefficient: see `guidance_coefficient`.
    """

    def step(x: Float[Tensor, "n *event"], t: Tensor, s: Tensor, value: Float[Tensor, "n *event"]) -> Gaussian:
        a, b = (c.to(x.dtype) for c in process.transition(s, t))
        c = guidance_coefficient(a, b, coefficient)
        return Gaussian(expand_to(a, x) * x + expand_to(c, x) * value, b)

    return FieldKernel(grad_log_g, step)


def langevin(score: VectorField, step_size: float) -> FieldKernel:
    """Unadjusted Langevin step: N(x + h ∇ log π(x), 2 h I), whose law tends to π as h → 0 and time grows.

    The length of a step does not depend on its times: a grid of K + 1 of them makes K steps, and the score is told
    where in the grid it stands.

    Args:
        score: ∇ log π at (x, t).
        step_size: h, positive.

    Raises:
        ValueError: ``step_size`` is not positive.
    """
    if not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be positive and finite, got {step_size}")

    def step(x: Float[Tensor, "n *event"], t: Tensor, s: Tensor, value: Float[Tensor, "n *event"]) -> Gaussian:
        return Gaussian(x + step_size * value, torch.full_like(t, (2 * step_size) ** 0.5, dtype=x.dtype))

    return FieldKernel(score, step)
