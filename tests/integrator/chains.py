"""Gaussian chains whose law is known after any number of steps."""

from problems import Scalars
from torch import Tensor

from sbflow.integrator import FieldKernel, euler_maruyama
from sbflow.process import Brownian
from sbflow.tensor import expand_to


def bridge_pairs(variance1: float, epsilon: float) -> Scalars:
    """Moments of the Schrödinger bridge from N(0, 1) to N(0, variance1)."""
    return Scalars(1.0, variance1, (variance1 + epsilon**2 / 4) ** 0.5 - epsilon / 2)


def slope(pairs: Scalars, epsilon: float, t: Tensor) -> Tensor:
    """A_t of the drift A_t x of the bridge."""
    s = 1 - t
    variance = s**2 * pairs.start + t**2 * pairs.end + t * s * (2 * pairs.cross + epsilon)
    return (s * (pairs.cross - pairs.start) + t * (pairs.end - pairs.cross) - epsilon * t) / variance


def bridge_kernel(variance1: float, epsilon: float) -> FieldKernel:
    """Euler–Maruyama along that bridge, in each coordinate alike."""
    pairs = bridge_pairs(variance1, epsilon)
    return euler_maruyama(
        lambda x, t: expand_to(slope(pairs, epsilon, t), x).to(x.dtype) * x, Brownian(epsilon).diffusion
    )
