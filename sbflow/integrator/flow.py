r"""The marginals of a diffusion as two fields, the velocity of its probability flow and its score.

Both are taken in the direction of generation and per unit of the process's own clock: of an Ornstein–Uhlenbeck process
the clock is :math:`\int \beta`, under which it is :math:`-x` with noise 2 and a step may be as long as it likes; of a
bridge it is time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from sbflow.integrator.kernel import VectorField
from sbflow.process.ornstein_uhlenbeck import OrnsteinUhlenbeck

__all__ = ["Flow", "FlowFields", "flow_from_bridge", "flow_from_score"]


class FlowFields(NamedTuple):
    """A flow at some points.

    Attributes:
        velocity: dx/dτ of the probability flow, τ the clock in the direction of generation ``[n, d]``.
        score: ∇ log density there ``[n, d]``.
    """

    velocity: Float[Tensor, "n d"]
    score: Float[Tensor, "n d"]


@dataclass(frozen=True)
class Flow:
    """Marginals of a diffusion.

    Args:
        fields: velocity and score at (x, t).
        clock: the process's own time at t, increasing.
        noise: variance of the process per unit of its clock.
        decay: rate at which the process forgets, per unit of its clock: 1 for Ornstein–Uhlenbeck, 0 for Brownian.
    """

    fields: Callable[[Tensor, Tensor], FlowFields]
    clock: Callable[[Tensor], Tensor]
    noise: float
    decay: float


def flow_from_score(process: OrnsteinUhlenbeck, score: VectorField) -> Flow:
    """Flow of a diffusion model that generates by denoising: velocity x + s per unit of ∫β.

    Args:
        process: its noising process, with σ = 1.
        score: ∇ log density of the noised data, at (x, t).

    Raises:
        ValueError: the process is not stationary under N(0, I).
    """
    if process.sigma != 1:
        raise ValueError(f"process.sigma must be 1 for a flow from a score, got {process.sigma}")

    def fields(x: Float[Tensor, "n d"], t: Tensor) -> FlowFields:
        s = score(x, t)
        return FlowFields(x + s, s)

    return Flow(fields, lambda t: -0.5 * process.schedule.alpha_bar(t).log(), noise=2.0, decay=1.0)


def flow_from_bridge(forward: VectorField, backward: VectorField, epsilon: float, *, margin: float = 1e-3) -> Flow:
    """Flow of a Schrödinger bridge, generating forward: velocity ½ (f − b) and score (f + b) / ε.

    For the other direction swap the two drifts, and count time from the other end.

    Args:
        forward: drift f of the direction of generation, at (x, t).
        backward: drift b of the other direction, at (x, 1 − t): its own clock.
        epsilon: variance of the reference per unit of time.
        margin: the drifts are evaluated at this distance from the ends at least, where a learned one is singular.
    """

    def fields(x: Float[Tensor, "n d"], t: Tensor) -> FlowFields:
        inside = t.clamp(margin, 1 - margin)
        f, b = forward(x, inside), backward(x, 1 - inside)
        return FlowFields(0.5 * (f - b), (f + b) / epsilon)

    return Flow(fields, lambda t: t, noise=epsilon, decay=0.0)
