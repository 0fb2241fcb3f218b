"""Problems with closed-form answers: Gaussian bridges, Gaussian potentials and the evidence of linear regression.

Nothing here uses the code under test, `Target` as an interface apart.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sbflow.target import Target

MEANS = torch.tensor([[0.9, -0.4], [-0.8, 0.7]], dtype=torch.float64)
COVARIANCES = torch.tensor([[[0.5, 0.3], [0.3, 0.4]], [[0.3, -0.1], [-0.1, 0.6]]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)


class Components(NamedTuple):
    """A Gaussian mixture times exp(log_z)."""

    means: Tensor
    covariances: Tensor
    weights: Tensor
    log_z: float


GAUSSIAN = Components(MEANS[:1], COVARIANCES[:1], torch.ones(1, dtype=torch.float64), 1.3)
MIXTURE = Components(MEANS, COVARIANCES, WEIGHTS, -0.7)


class MixtureDensity(Target):
    """γ = exp(log_z) Σ_k w_k N(μ_k, S_k), by `torch.distributions`."""

    def __init__(self, components: Components) -> None:
        super().__init__()
        self.components = components
        self.dim = components.means.shape[1]
        self.log_normalizer = components.log_z

    def log_prob(self, x: Tensor) -> Tensor:
        c = self.components
        laws = torch.distributions.MultivariateNormal(c.means, c.covariances)
        return self.log_normalizer + torch.logsumexp(c.weights.log() + laws.log_prob(x[:, None]), -1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        c = self.components
        k = torch.multinomial(c.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.dim, dtype=torch.float64, generator=generator)
        return c.means[k] + torch.einsum("nde,ne->nd", torch.linalg.cholesky(c.covariances)[k], z)


class LinearRegression(Target):
    """y = X θ + N(0, noise²), θ ~ N(0, I): γ is likelihood times prior, Z the evidence N(y; 0, noise² I + X Xᵀ)."""

    def __init__(self, features: Tensor, y: Tensor, noise: float) -> None:
        super().__init__()
        self.features, self.y, self.noise = features, y, noise
        self.dim = features.shape[1]
        eye = torch.eye(len(y), dtype=torch.float64)
        law = torch.distributions.MultivariateNormal(torch.zeros_like(y), noise**2 * eye + features @ features.T)
        self.log_normalizer = float(law.log_prob(y))

    def log_prob(self, x: Tensor) -> Tensor:
        features, y = self.features.to(x.dtype), self.y.to(x.dtype)
        likelihood = torch.distributions.Normal(x @ features.T, self.noise).log_prob(y).sum(-1)
        return likelihood + torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)

    def posterior(self) -> Components:
        precision = torch.eye(self.dim, dtype=torch.float64) + self.features.T @ self.features / self.noise**2
        covariance = torch.linalg.inv(precision)
        mean = covariance @ self.features.T @ self.y / self.noise**2
        one = torch.ones(1, dtype=torch.float64)
        return Components(mean[None], covariance[None], one, self.log_normalizer)


def linear_regression(dim: int = 3, num_rows: int = 6, noise: float = 1.5) -> LinearRegression:
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(num_rows, dim, dtype=torch.float64, generator=generator)
    truth = torch.linspace(-1, 1, dim, dtype=torch.float64)
    y = features @ truth + noise * torch.randn(num_rows, dtype=torch.float64, generator=generator)
    return LinearRegression(features, y, noise)


def gauss_hermite(num_points: int = 120) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the expectation under N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_points)
    return torch.from_numpy(nodes), torch.from_numpy(weights / math.sqrt(2 * math.pi))


class GaussianCoupling(NamedTuple):
    """Jointly Gaussian ends: means, covariances and C = Cov(X0, X1)."""

    mean0: Tensor
    mean1: Tensor
    cov0: Tensor
    cov1: Tensor
    cross: Tensor

    def reversed(self) -> "GaussianCoupling":
        return GaussianCoupling(self.mean1, self.mean0, self.cov1, self.cov0, self.cross.T)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        joint = torch.cat([torch.cat([self.cov0, self.cross], 1), torch.cat([self.cross.T, self.cov1], 1)])
        z = torch.randn(n, len(joint), dtype=torch.float64, generator=generator)
        x = z @ torch.linalg.cholesky(joint).T + torch.cat([self.mean0, self.mean1])
        return x.chunk(2, dim=1)


def asymmetric_coupling() -> GaussianCoupling:
    """A coupling of correlated Gaussians whose C is not symmetric, so that every transpose in a formula matters."""
    mean0, mean1, cov0, cov1, cross = (
        torch.tensor(value, dtype=torch.float64)
        for value in (
            [0.5, -1.0],
            [-0.3, 2.0],
            [[1.0, 0.4], [0.4, 0.7]],
            [[2.0, -0.5], [-0.5, 1.5]],
            [[0.8, 0.1], [-0.4, 0.3]],
        )
    )
    return GaussianCoupling(mean0, mean1, cov0, cov1, cross)


def path_moments(coupling: GaussianCoupling, epsilon: float, t: Tensor) -> tuple[Tensor, Tensor]:
    """Means ``[n, d]`` and covariances ``[n, d, d]`` at times ``[n]`` of Brownian bridges between coupled ends."""
    c, t = coupling, t[:, None, None]
    eye = torch.eye(len(c.mean0), dtype=torch.float64)
    cov = (1 - t) ** 2 * c.cov0 + t**2 * c.cov1 + t * (1 - t) * (c.cross + c.cross.T) + epsilon * t * (1 - t) * eye
    return torch.lerp(c.mean0, c.mean1, t[:, 0]), cov


def projected_slope(coupling: GaussianCoupling, epsilon: float, t: Tensor) -> Tensor:
    """A_t ``[n, d, d]`` of the Markovian projection of the same paths, of drift (mean1 − mean0) + A_t (x − m_t)."""
    c, w = coupling, t[:, None, None]
    eye = torch.eye(len(c.mean0), dtype=torch.float64)
    covariance_with_target = (1 - w) * (c.cross.T - c.cov0) + w * (c.cov1 - c.cross) - epsilon * w * eye
    return covariance_with_target @ torch.linalg.inv(path_moments(c, epsilon, t)[1])


def projected_drift(coupling: GaussianCoupling, epsilon: float, x: Tensor, t: Tensor) -> Tensor:
    """Drift of the Markovian projection at (x ``[n, d]``, t ``[n]``)."""
    centred = x - path_moments(coupling, epsilon, t)[0]
    slope = projected_slope(coupling, epsilon, t)
    return coupling.mean1 - coupling.mean0 + torch.einsum("nij,nj->ni", slope, centred)


class LinearDrift(torch.nn.Module):
    """Markovian projections of a coupling in both directions: the network that bridge matching would end with."""

    def __init__(self, coupling: GaussianCoupling, epsilon: float) -> None:
        super().__init__()
        self.couplings = coupling, coupling.reversed()
        self.epsilon = epsilon

    def forward(self, x: Tensor, u: Tensor, direction: Tensor) -> Tensor:
        u = u.double().expand(len(x))
        both = [projected_drift(coupling, self.epsilon, x.double(), u) for coupling in self.couplings]
        return torch.where(direction[:, None] == 0, *both).to(x.dtype)


def scalar_coupling(variance0: float, variance1: float, cross: float) -> GaussianCoupling:
    """A centred coupling on the line."""
    zero = torch.zeros(1, dtype=torch.float64)
    return GaussianCoupling(zero, zero, *(torch.full((1, 1), v).double() for v in (variance0, variance1, cross)))


def simulated_cross(coupling: GaussianCoupling, epsilon: float, num_steps: int) -> Tensor:
    """Cov(X0, X̂1) of Euler–Maruyama with the Markovian projection: dG/dt = G A_tᵀ from G_0 = S0, one exact IMF step."""
    gain = coupling.cov0
    for t in torch.arange(num_steps, dtype=torch.float64) / num_steps:
        gain = gain + gain @ projected_slope(coupling, epsilon, t[None])[0].T / num_steps
    return gain


class Scalars(NamedTuple):
    """Variances of start and end of the training pairs of one direction, and their covariance."""

    start: float
    end: float
    cross: float


class FixedPoint(NamedTuple):
    """Covariance of a start with its simulated end and variance of that end, in each direction."""

    cross_forward: float
    cross_backward: float
    variance1: float
    variance0: float


def scalar_slope(pairs: Scalars, epsilon: float, u: float) -> float:
    s = 1 - u
    variance = s**2 * pairs.start + u**2 * pairs.end + 2 * u * s * pairs.cross + epsilon * u * s
    return (s * (pairs.cross - pairs.start) + u * (pairs.end - pairs.cross) - epsilon * u) / variance


def euler_moments(
    variance: float, pairs: Scalars, epsilon: float, num_steps: int, last_noise: bool
) -> tuple[float, float]:
    """Variance of the end, and its covariance with the start, of Euler–Maruyama with the drift learned on ``pairs``."""
    start, gain = variance, 1.0
    for k in range(num_steps):
        factor = 1 + scalar_slope(pairs, epsilon, k / num_steps) / num_steps
        noise = epsilon / num_steps if last_noise or k < num_steps - 1 else 0.0
        variance, gain = factor**2 * variance + noise, factor * gain
    return variance, start * gain


def online_loop(
    variance0: float,
    variance1: float,
    epsilon: float,
    num_steps: int,
    last_noise: bool,
    *,
    regress_on: Literal["data", "generated"] = "data",
    iterations: int = 400,
) -> FixedPoint:
    """Iterate simulate-then-fit with exact fits from the independent coupling to its fixed point.

    ``regress_on="data"`` pairs every generated start with the real end it was simulated from; ``"generated"`` is the
    wrong pairing, which regresses on the end that the direction itself made.
    """
    forward, backward = Scalars(variance0, variance1, 0.0), Scalars(variance1, variance0, 0.0)
    for _ in range(iterations):
        end1, cross_f = euler_moments(variance0, forward, epsilon, num_steps, last_noise)
        end0, cross_b = euler_moments(variance1, backward, epsilon, num_steps, last_noise)
        if regress_on == "data":
            forward, backward = Scalars(end0, variance1, cross_b), Scalars(end1, variance0, cross_f)
        else:
            forward, backward = Scalars(variance0, end1, cross_f), Scalars(variance1, end0, cross_b)
    return FixedPoint(cross_f, cross_b, end1, end0)
