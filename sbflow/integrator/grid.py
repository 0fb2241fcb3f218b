"""Grids of times for a rollout in its own clock, from 0 to 1."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.process import uniform_times

__all__ = ["Spacing", "time_grid"]

Spacing = Literal["uniform", "cosine", "quadratic"]
"""Equal steps; steps that are fine at both ends; steps that shrink in proportion to the time left."""

_WARPS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,
    "cosine": lambda u: 0.5 * (1 - torch.cos(math.pi * u)),
    "quadratic": lambda u: 1 - (1 - u) ** 2,
}


def time_grid(
    times: Spacing | Tensor, num_steps: int, *, device: torch.device | str | None = None
) -> Float[Tensor, " k"]:
    """Grid of a rollout in float64.

    Args:
        times: name of a spacing of ``num_steps`` steps, or the grid itself: increasing from 0 to 1.
        num_steps: steps of a named spacing; a grid brings its own number.
        device: where the grid is to lie.

    Raises:
        ValueError: ``num_steps`` is below 1, the name is unknown or the grid does not increase from 0 to 1.

    >>> time_grid("quadratic", 2).tolist()
    [0.0, 0.75, 1.0]
    """
    if isinstance(times, Tensor):
        return _checked(times).to(device=device, dtype=torch.float64)
    if times not in _WARPS:
        raise ValueError(f"times must be one of {', '.join(_WARPS)} or a tensor of times, got {times!r}")
    return _WARPS[times](uniform_times(num_steps, device=device)).clamp(0, 1)


def _checked(times: Tensor) -> Tensor:
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times must be a vector of at least 2 times, got shape {list(times.shape)}")
    if not (times[0] == 0 and times[-1] == 1 and (times.diff() > 0).all()):
        raise ValueError(f"times must increase from 0 to 1, got {[round(t, 4) for t in times.tolist()]}")
    return times
