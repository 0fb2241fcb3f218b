"""Deterministic stepping: the probability flow."""

from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sbflow.integrator.kernel import VectorField
from sbflow.tensor import expand_to

__all__ = ["solve_ode"]


def solve_ode(
    velocity: VectorField,
    x: Float[Tensor, "n *event"],
    times: Float[Tensor, " k"],
    *,
    method: Literal["euler", "heun"] = "heun",
) -> Float[Tensor, "n *event"]:
    """Solve dx/dt = velocity(x, t) along a grid of times, in either direction.

    Args:
        velocity: the field; the probability flow of a bridge is half the difference of its forward drift and its
            own-clock backward drift.
        x: states at ``times[0]``.
        times: monotone grid.
        method: ``"euler"`` (order 1, one evaluation a step) or ``"heun"`` (order 2, two evaluations a step).

    Raises:
        ValueError: unknown method.
    """
    if method not in ("euler", "heun"):
        raise ValueError(f"method must be 'euler' or 'heun', got {method!r}")
    for t, s in pairwise(times):
        step = expand_to(s - t, x).to(x.dtype)
        slope = velocity(x, t)
        if method == "heun":
            slope = 0.5 * (slope + velocity(x + step * slope, s))
        x = x + step * slope
    return x
