r"""Noise schedules and time grids.

A schedule is the function :math:`\bar\alpha(t) = \exp(-2 \int_0^t \beta)`, decreasing from exactly 1 at t = 0: the
share of the signal's variance that is left at time t. Everything a sampler needs follows from it,
:math:`1 - \lambda_{s,t} = \bar\alpha(t) / \bar\alpha(s)`.
"""

import abc
import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from torch import Tensor

__all__ = [
    "Constant",
    "Cosine",
    "Dds",
    "Interpolation",
    "Linear",
    "Schedule",
    "equalise",
    "interpolate",
    "path_length",
    "uniform_times",
]

Interpolation = Literal["linear", "pchip"]


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


class Dds(Schedule):
    """Noise step by step, λ_k = (alpha_max cos²(½π (1 − k / K + offset) / (1 + offset)))² into time k / K.

    Steps are small near the target and largest far from it. Between the times of the rule the rate is constant, so that
    any grid can be used with it; ``num_steps`` equal ones are the rule itself.

    Args:
        alpha_max: square root of the largest λ of a step, in (0, 1).
        num_steps: steps of the rule, K; the more, the more noise at t = 1.
        offset: shift of the phase, at least 0; above 0 it keeps the smallest step away from zero.

    References:
        Vargas, Grathwohl, Doucet, "Denoising Diffusion Samplers", 2023.
    """

    def __init__(self, alpha_max: float = 0.6, num_steps: int = 64, offset: float = 0.008) -> None:
        if not (0 < alpha_max < 1 and num_steps >= 1 and offset >= 0):
            raise ValueError(
                "need alpha_max in (0, 1), num_steps of at least 1 and offset of at least 0, "
                f"got {alpha_max}, {num_steps} and {offset}"
            )
        self.alpha_max = alpha_max
        self.num_steps = num_steps
        self.offset = offset

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Product of 1 − λ over the steps up to t, the last one in part."""
        rates = self._rates(t)
        # minus log ᾱ at the times of the rule, zero first
        total = torch.cat([rates.new_zeros(1), rates.cumsum(0)])
        k = self._step(t)
        return torch.exp(-(total[k] + rates[k] * (t * self.num_steps - k)))

    def beta(self, t: Tensor) -> Tensor:
        """See the class."""
        return 0.5 * self.num_steps * self._rates(t)[self._step(t)]

    def _rates(self, like: Tensor) -> Float[Tensor, " k"]:
        """−log(1 − λ) of each step."""
        k = torch.arange(1, self.num_steps + 1, dtype=like.dtype, device=like.device)
        phase = 0.5 * math.pi * (1 - k / self.num_steps + self.offset) / (1 + self.offset)
        return -torch.log1p(-((self.alpha_max * torch.cos(phase) ** 2) ** 2))

    def _step(self, t: Tensor) -> Tensor:
        return (t * self.num_steps).floor().long().clamp(0, self.num_steps - 1)


def uniform_times(num_steps: int, *, device: torch.device | str | None = None) -> Float[Tensor, " k"]:
    """Equidistant grid of ``num_steps`` + 1 times from 0 to 1, in float64.

    Raises:
        ValueError: ``num_steps`` is below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return torch.linspace(0, 1, num_steps + 1, dtype=torch.float64, device=device)


def equalise(
    times: Float[Tensor, " k"],
    costs: Float[Tensor, " l"],
    num_steps: int,
    *,
    uniform_share: float = 0.0,
    interpolation: Interpolation = "linear",
    floor: float = 1e-12,
) -> Float[Tensor, " m"]:
    """Grid of ``num_steps`` + 1 times whose steps all cost the same, as far as the costs of another grid tell.

    The cost of a short step grows with its squared length, so that the root of the cost is a length along the path, and
    equal lengths are the cheapest way to go it in that many steps (Williams et al. 2024).

    Args:
        times: increasing grid.
        costs: cost of each of its k − 1 steps, at least 0.
        num_steps: steps of the new grid, at least 1.
        uniform_share: share of the steps that are spread evenly over time instead, in [0, 1].
        interpolation: of the times between those of the grid by the length travelled, ``"linear"`` or the smooth and
            monotone ``"pchip"`` of Fritsch and Carlson.
        floor: least cost of a step as a share of the greatest, in (0, 1]: it keeps the new grid increasing where a step
            costs nothing.

    Returns:
        strictly increasing times with the same ends.

    Raises:
        ValueError: an option out of its range, times that do not increase, or costs that are negative or not finite.

    References:
        Williams, Campbell, Doucet, Syed, "Score-Optimal Diffusion Schedules", 2024.

    >>> equalise(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([9.0, 1.0]), 4).tolist()
    [0.0, 0.1666666716337204, 0.3333333432674408, 0.5, 1.0]
    """
    if num_steps < 1 or not 0 <= uniform_share <= 1:
        raise ValueError(
            f"need num_steps of at least 1 and uniform_share in [0, 1], got {num_steps} and {uniform_share}"
        )
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation must be 'linear' or 'pchip', got {interpolation!r}")
    if not 0 < floor <= 1:
        raise ValueError(f"floor must lie in (0, 1], got {floor}")
    _check_costs(times, costs)
    knots = times.double()
    travelled = _travelled(knots, costs.to(knots), uniform_share, floor)
    marks = torch.linspace(0, 1, num_steps + 1, dtype=knots.dtype, device=knots.device)[1:-1] * travelled[-1]
    inner = interpolate(marks, travelled, knots) if interpolation == "linear" else _pchip(marks, travelled, knots)
    return torch.cat([times[:1], inner.to(times), times[-1:]])


def path_length(costs: Float[Tensor, " l"]) -> float:
    """Length Λ of a path, the sum of the roots of what its steps cost.

    On K steps of equal cost it costs Λ² / K, which is the least that any K steps can cost; on a grid that is too coarse
    Λ comes out too short.

    >>> path_length(torch.tensor([4.0, 9.0]))
    5.0
    """
    return float(costs.sqrt().sum())


def _check_costs(times: Float[Tensor, " k"], costs: Float[Tensor, " l"]) -> None:
    if len(times) < 2 or not (times.diff() > 0).all():
        raise ValueError(f"times must be at least 2 that increase, got {times.tolist()}")
    if len(costs) != len(times) - 1 or not ((costs >= 0) & costs.isfinite()).all():
        raise ValueError(f"costs must be {len(times) - 1} finite numbers of at least 0, got {costs.tolist()}")


def _travelled(
    times: Float[Tensor, " k"], costs: Float[Tensor, " l"], uniform_share: float, floor: float
) -> Float[Tensor, " k"]:
    """Share of the way that lies behind at each time; the ends are those of rounded sums."""
    lengths = torch.where(costs.max() > 0, costs.clamp_min(floor * costs.max()), 1.0).sqrt()
    lengths = (1 - uniform_share) * lengths / lengths.sum() + uniform_share * times.diff() / (times[-1] - times[0])
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _pchip(x: Float[Tensor, " n"], knots: Float[Tensor, " k"], values: Float[Tensor, " k"]) -> Float[Tensor, " n"]:
    curve = PchipInterpolator(knots.numpy(force=True), values.numpy(force=True))
    return torch.from_numpy(curve(x.numpy(force=True))).to(x)


def interpolate(x: Float[Tensor, " n"], knots: Float[Tensor, " k"], values: Float[Tensor, " k"]) -> Float[Tensor, " n"]:
    """Piecewise linear function through increasing knots, at points between the first and the last."""
    k = torch.searchsorted(knots, x, right=True).clamp(1, len(knots) - 1)
    share = (x - knots[k - 1]) / (knots[k] - knots[k - 1])
    return torch.lerp(values[k - 1], values[k], share)
