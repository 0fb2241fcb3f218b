"""Products of one-dimensional double wells and standard Gaussians: 2^wells modes, log Z by one-dimensional quadrature.

A double well has log γ(x) = −w (x² − s)² + c x: modes near ±√s with a barrier of w s² nats between them, and the tilt c
that makes one the deeper.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.tensor import randn_like

__all__ = ["DoubleWell", "ProductOfWells"]

_GRID_SIZE = 20_001


class ProductOfWells(Target):
    """Independent coordinates, each a double well or, unnormalised, a standard Gaussian.

    Args:
        is_well: which coordinates are double wells.
        weight: w, how steep the wells are.
        separation: s, the square of the distance of the wells from zero; negative makes one well.
        tilt: c, the slope that favours the well on its side.
        offset: constant that is added to log γ for every well.

    Raises:
        ValueError: ``weight`` is not positive, or a number is not finite.
    """

    is_well: Tensor
    grid: Tensor
    cumulative: Tensor

    def __init__(
        self, is_well: Bool[Tensor, " d"], weight: float, separation: float, tilt: float = 0.0, offset: float = 0.0
    ) -> None:
        super().__init__()
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"weight must be positive and finite, got {weight}")
        for name, value in (("separation", separation), ("tilt", tilt), ("offset", offset)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value}")
        self.dim = len(is_well)
        self.weight, self.separation, self.tilt, self.offset = weight, separation, tilt, offset
        grid = self._grid()
        log_density = self._well(grid)
        density = (log_density - log_density.max()).exp()
        mass = torch.trapezoid(density, grid)
        num_wells = int(is_well.sum())
        gaussians = 0.5 * (self.dim - num_wells) * math.log(2 * math.pi)
        self.log_normalizer = num_wells * (mass.log() + log_density.max() + offset).item() + gaussians
        cumulative = torch.cumulative_trapezoid(density, grid) / mass
        dtype = torch.get_default_dtype()
        self.register_buffer("is_well", is_well, persistent=False)
        self.register_buffer("grid", grid.to(dtype), persistent=False)
        self.register_buffer("cumulative", cumulative.to(dtype), persistent=False)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log γ(x) in nats."""
        return torch.where(self.is_well, self._well(x) + self.offset, -0.5 * x.square()).sum(1)

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log γ(x) and ∇ log γ(x)."""
        slope = -4 * self.weight * x * (x.square() - self.separation) + self.tilt
        return self.log_prob(x), torch.where(self.is_well, slope, -x)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Samples of π: wells by inversion of their distribution function on a fine grid, exact to five digits."""
        normal = randn_like(self.grid.new_empty(n, self.dim), generator)
        # the distribution function of the normal law turns the same noise into uniform numbers
        level = torch.special.ndtr(normal).contiguous()
        k = torch.searchsorted(self.cumulative, level).clamp(1, len(self.cumulative) - 1)
        below, above = self.cumulative[k - 1], self.cumulative[k]
        fraction = ((level - below) / (above - below).clamp_min(torch.finfo(level.dtype).tiny)).clamp(0, 1)
        return torch.where(self.is_well, torch.lerp(self.grid[k], self.grid[k + 1], fraction), normal)

    def _well(self, x: Tensor) -> Tensor:
        """Log density of one well at each number, but for the offset."""
        return -self.weight * (x.square() - self.separation).square() + self.tilt * x

    def _grid(self) -> Float[Tensor, " k"]:
        """Where the density of a well is above e⁻⁸⁰ of what it is at zero slope."""
        reach = math.sqrt(max(self.separation, 0.0) + math.sqrt(80 / self.weight))
        reach += (abs(self.tilt) / (4 * self.weight)) ** (1 / 3)
        return torch.linspace(-reach, reach, _GRID_SIZE, dtype=torch.float64)


class DoubleWell(ProductOfWells):
    """The first ``num_wells`` coordinates are symmetric double wells, the others standard Gaussians.

    Args:
        dim: dimension d.
        num_wells: number of double wells, 1 to ``dim``; there are 2^num_wells modes.
        separation: square of the distance of the wells from zero.
        weight: how steep the wells are; the barrier is ``weight * separation**2`` nats.

    Raises:
        ValueError: ``num_wells`` is not between 1 and ``dim``, or ``weight`` is not positive.

    References:
        Wu, Köhler and Noé, Stochastic Normalizing Flows, NeurIPS 2020.
    """

    def __init__(self, dim: int = 5, num_wells: int = 5, separation: float = 4.0, weight: float = 1.0) -> None:
        if not 1 <= num_wells <= dim:
            raise ValueError(f"num_wells must be between 1 and dim = {dim}, got {num_wells}")
        super().__init__(torch.arange(dim) < num_wells, weight, separation)
