r"""Noise schedules and time grids.

A schedule is the function :math:`\bar\alpha(t) = \exp(-2 \int_0^t \beta)`, decreasing from exactly 1 at t = 0: the
share of the signal's variance that is left at time t. Everything a sampler needs follows from it,
:math:`1 - \lambda_{s,t} = \bar\alpha(t) / \bar\alpha(s)`.
"""

import abc
import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Constant", "Cosine", "Linear", "Schedule", "uniform_times"]


class Schedule(abc.ABC):
    """Monotone noise schedule on [0, 1]; stateless."""

    @abc.abstractmethod
    def alpha_bar(self, t: Tensor) -> Tensor:
        """ᾱ(t), positive, decreasing, exactly 1 at t = 0."""

    @abc.abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """Noise rate β_t = −½ d log ᾱ / dt."""


class Cosine(Schedule):
    """ᾱ(t) ∝ cos²(½π (t + offset) / (1 + offset)), normalised to 1 at t = 0, then lifted to end at ``floor``.

    Without the normalisation λ_0 > 0 and the estimate of Z is biased in silence. The floor keeps ᾱ(1) representable,
    so that one over it is too.

    Args:
        offset: shift that keeps β away from zero at the start.
        floor: ᾱ(1), positive.
    """

    def __init__(self, offset: float = 0.008, floor: float = 1e-6) -> None:
        if not (offset >= 0 and 0 < floor < 1):
            raise ValueError(f"offset must be at least 0 and floor lie in (0, 1), got {offset} and {floor}")
        self.offset = offset
        self.floor = floor

    def alpha_bar(self, t: Tensor) -> Tensor:
        """See the class."""
        start = torch.cos(self._phase(torch.zeros_like(t))) ** 2
        return 1 - (1 - self.floor) * (1 - torch.cos(self._phase(t)) ** 2 / start)

    def beta(self, t: Tensor) -> Tensor:
        """−½ ᾱ′ / ᾱ."""
        rate = 0.5 * math.pi / (1 + self.offset)
        start = torch.cos(self._phase(torch.zeros_like(t))) ** 2
        slope = (1 - self.floor) * rate * torch.sin(2 * self._phase(t)).clamp_min(0) / start
        return 0.5 * slope / self.alpha_bar(t)

    def _phase(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (t + self.offset) / (1 + self.offset)


class Linear(Schedule):
    """β_t = beta_min + t (beta_max − beta_min).

    Args:
        beta_min: noise rate at t = 0, at least 0.
        beta_max: noise rate at t = 1, above ``beta_min``.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 10.0) -> None:
        if not 0 <= beta_min <= beta_max or beta_max == 0:
            raise ValueError(f"need 0 <= beta_min <= beta_max and beta_max > 0, got {beta_min} and {beta_max}")
        self.beta_min = beta_min
        self.beta_max = beta_max

    def alpha_bar(self, t: Tensor) -> Tensor:
        """exp(−2 ∫₀ᵗ β)."""
        return torch.exp(-2 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2))

    def beta(self, t: Tensor) -> Tensor:
        """See the class."""
        return self.beta_min + t * (self.beta_max - self.beta_min)


class Constant(Linear):
    """β_t = beta.

    Args:
        beta: the noise rate, positive.
    """

    def __init__(self, beta: float = 5.0) -> None:
        super().__init__(beta, beta)


def uniform_times(num_steps: int, *, device: torch.device | str | None = None) -> Float[Tensor, " k"]:
    """Equidistant grid of ``num_steps`` + 1 times from 0 to 1, in float64.

    Raises:
        ValueError: ``num_steps`` is below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return torch.linspace(0, 1, num_steps + 1, dtype=torch.float64, device=device)
