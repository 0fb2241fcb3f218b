"""Log-Gaussian Cox process: a point pattern on the unit square, its log intensity a Gaussian field on a grid.

Cell m of an M × M grid holds y_m ~ Poisson(exp(f_m) / M²) points; f ~ N(μ, K) with K = 1.91 exp(−distance / (M/33)),
distances in cells, and μ = log 126 − 1.91 / 2. γ(f) is likelihood times prior, the former without the factors
that do not depend on f: the density of the point pattern, ∏ exp(y_m f_m − exp(f_m) / M²).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.target.dataset import read_csv

__all__ = ["LGCP", "LogGaussianCoxProcess"]

_VARIANCE = 1.91
_LENGTH = 1 / 33


class LogGaussianCoxProcess(Target):
    """Posterior of the log intensity at the M² cells, each coordinate one cell; d = M².

    The precision of the prior is formed once, in float64; a value with its gradient is then one matrix product.

    Args:
        points: coordinates in the unit square.
        grid_size: cells M along each side.
        mean: prior mean μ of the log intensity; by default log(number of points) − 1.91 / 2.

    Raises:
        ValueError: ``points`` are not in the unit square, or ``grid_size`` is below 1.

    References:
        Møller, Syversveen and Waagepetersen, Log Gaussian Cox Processes, Scandinavian Journal of Statistics 1998.
    """

    counts: Tensor
    precision: Tensor

    def __init__(self, points: Float[Tensor, "p 2"], grid_size: int = 40, mean: float | None = None) -> None:
        super().__init__()
        if grid_size < 1:
            raise ValueError(f"grid_size must be at least 1, got {grid_size}")
        if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not ((points >= 0) & (points <= 1)).all():
            raise ValueError(f"points must lie in the unit square and have shape [p, 2], got {list(points.shape)}")
        self.dim = grid_size**2
        self.mean = math.log(len(points)) - 0.5 * _VARIANCE if mean is None else mean
        # float64: the factorisation is rounded once, at the end
        factor = torch.linalg.cholesky(_covariance(grid_size))
        self.log_constant = -factor.diagonal().log().sum().item() - 0.5 * self.dim * math.log(2 * math.pi)
        self.register_buffer("counts", _counts(points, grid_size).to(points.dtype), persistent=False)
        self.register_buffer("precision", torch.cholesky_inverse(factor).to(points.dtype), persistent=False)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log p(y, f = x) in nats, but for the terms −log y_m! and −y_m log M², which do not depend on f."""
        return self.log_prob_and_score(x)[0]

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log p(y, f = x) and its gradient."""
        counts, centred = self.counts.to(x.dtype), x - self.mean
        expected = x.exp() / self.dim
        pull = centred @ self.precision.to(x.dtype)
        log_likelihood = (counts * x - expected).sum(1)
        return log_likelihood - 0.5 * (centred * pull).sum(1) + self.log_constant, counts - expected - pull


class LGCP(LogGaussianCoxProcess):
    """126 Finnish pines on a grid of ``grid_size`` × ``grid_size`` cells, d = 1600 by default.

    ``log_normalizer``, known for the default grid, is a reference value, ± 0.05: annealed sequential Monte Carlo with
    Hamiltonian moves from a Laplace approximation.

    Args:
        grid_size: cells along each side.

    Raises:
        FileNotFoundError: the data are not under the data root, see `sbflow.target.dataset`.
        ValueError: ``grid_size`` is below 1.
    """

    def __init__(self, grid_size: int = 40) -> None:
        super().__init__(read_csv("finnish_pines").to(torch.get_default_dtype()), grid_size)
        if grid_size == 40:
            self.log_normalizer = 501.77
            self.log_normalizer_stderr = 0.05


def _covariance(grid_size: int) -> Float[Tensor, "d d"]:
    cells = torch.cartesian_prod(*[torch.arange(grid_size, dtype=torch.float64)] * 2)
    return _VARIANCE * (-torch.cdist(cells, cells) / (_LENGTH * grid_size)).exp()


def _counts(points: Float[Tensor, "p 2"], grid_size: int) -> Float[Tensor, " d"]:
    """Points in each cell, row by row."""
    cells = (points.double() * grid_size).long().clamp_max(grid_size - 1)
    return torch.bincount(cells[:, 0] * grid_size + cells[:, 1], minlength=grid_size**2).double()
