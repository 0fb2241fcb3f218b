"""Schrödinger bridges between correlated Gaussians of different scales, in closed form and by simulation."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.integrator import Kernel, VectorField, euler_maruyama, simulate
from sbflow.loss import Pairs, bridge_matching
from sbflow.process import Brownian, GaussianBridge, uniform_times
from sbflow.selfcheck.gaussian_pairs import GaussianPairs, Moments, fixed_point
from sbflow.selfcheck.measurement import Measurement, worst_mean
from sbflow.tensor import seeded_generator

__all__ = [
    "bridge_kernel",
    "bridge_matching_minimum",
    "closed_form",
    "discretised_flow",
    "random_bridge",
    "simulated_bridge",
]

EPSILON = 0.8
ROUNDING = 1e-9
"""Of matrix functions in float64, with a wide margin."""


def random_bridge(seed: int, dim: int = 3) -> GaussianBridge:
    """Bridge between two correlated Gaussians, the second of four times the variance."""
    generator = seeded_generator(seed, 1)
    means = torch.randn(2, dim, dtype=torch.float64, generator=generator)
    roots = torch.randn(2, dim, 3 * dim, dtype=torch.float64, generator=generator)
    cov0, cov1 = roots @ roots.mT / (3 * dim)
    return GaussianBridge(means[0], means[1], cov0, 4 * cov1, EPSILON)


def bridge_kernel(bridge: GaussianBridge) -> Kernel:
    """Euler–Maruyama step with the drift of the bridge."""
    return euler_maruyama(lambda x, t: bridge.drift(x, float(t)), Brownian(EPSILON).diffusion)


def closed_form(device: torch.device, seed: int) -> Iterator[Measurement]:
    """The Gaussian bridge solves its equations, and simulation tends to it at the rate of the scheme."""
    b = random_bridge(seed)
    residual = b.gain @ b.cov0 @ b.gain + EPSILON * b.gain - b.cov1
    yield Measurement("Gaussian bridge: K S0 K + ε K − S1", float(residual.abs().max()), 0.0, tolerance=ROUNDING)
    x = torch.randn(64, len(b.mean0), dtype=torch.float64, generator=seeded_generator(seed, 2)).to(device)
    mean, covariance = (part.to(device) for part in b.marginal(0.3))
    score = -torch.linalg.solve(covariance, (x - mean).mT).mT
    gap = b.drift(x, 0.3) + b.reversed().drift(x, 0.7) - EPSILON * score
    yield Measurement("Gaussian bridge: both drifts − ε ∇ log p", float(gap.abs().max()), 0.0, tolerance=ROUNDING)
    coarse, fine = (_pairs(b).euler(EPSILON, k, b.mean0, b.cov0) for k in (200, 400))
    # along the bridge the drift of the mean is constant, so that any number of steps gives the covariance of the ends
    gap = fine.cross - b.cross
    yield Measurement("Euler–Maruyama: Cov(X0, X1) − S0 K", float(gap.abs().max()), 0.0, tolerance=ROUNDING)
    ratio = (coarse.covariance - b.cov1).norm() / (fine.covariance - b.cov1).norm()
    yield Measurement("Euler–Maruyama: error of 200 steps / of 400", float(ratio), 2.0, tolerance=0.02)


def bridge_matching_minimum(device: torch.device, seed: int) -> Iterator[Measurement]:
    """At the drift of the bridge the gradient of bridge matching is zero, whichever linear drift is added."""
    b, generator = random_bridge(seed), seeded_generator(seed, 3)
    pairs, dim = _pairs(b).to(device), len(b.mean0)
    added = torch.zeros(dim, dim + 1, dtype=torch.float64, device=device, requires_grad=True)

    def drift(x: Tensor, u: Tensor, direction: Tensor) -> Tensor:
        return pairs.drift(EPSILON, x, u) + x @ added[:, :dim].mT + added[:, dim]

    gradients = []
    for _ in range(100):
        start = _normal(b.mean0, b.cov0, 500, generator).to(device)
        ends = Pairs(start, b.sample(start, generator), torch.zeros(500, dtype=torch.long, device=device))
        loss = bridge_matching(drift, Brownian(EPSILON), ends, generator=generator)
        gradients.append(torch.autograd.grad(loss, added)[0])
    yield worst_mean("bridge matching: gradient at the bridge", torch.stack(gradients), 0.0)


def simulated_bridge(device: torch.device, seed: int) -> Iterator[Measurement]:
    """Simulating the drift of the bridge gives the moments of the linear recursion, in both directions."""
    b, generator = random_bridge(seed), seeded_generator(seed, 4)
    for name, bridge in (("forward", b), ("backward", b.reversed())):
        start = _normal(bridge.mean0, bridge.cov0, 50_000, generator).to(device)
        end = simulate(bridge_kernel(bridge), start, uniform_times(20), generator=generator)
        expected = _pairs(bridge).euler(EPSILON, 20, bridge.mean0, bridge.cov0)
        yield from _compare(f"bridge, {name}", bridge.mean0, start, end, expected)


def discretised_flow(device: torch.device, seed: int) -> Iterator[Measurement]:
    """Simulate, regress on what was simulated, again: the flow from samples reaches its discretised fixed point."""
    b, generator = random_bridge(seed, dim=2), seeded_generator(seed, 5)
    data = _pairs(b)._replace(cross=torch.zeros(2, 2, dtype=torch.float64))
    settings = {"num_steps": 10, "iterations": 10}
    expected = fixed_point(data, EPSILON, **settings)
    for name, sets, law in zip(("forward", "backward"), _flow(b, generator, device, **settings), expected, strict=True):
        start, end = sets
        # one covariance per flow, and as many independent flows as there are
        cross = ((start - start.mean(1, keepdim=True)).mT @ end) / (start.shape[1] - 1)
        spread = end - end.mean(1, keepdim=True)
        yield worst_mean(f"flow, {name}: covariance of the ends", cross, law.cross)
        yield worst_mean(f"flow, {name}: covariance generated", spread.mT @ spread / (end.shape[1] - 1), law.covariance)


def _flow(
    b: GaussianBridge, generator: torch.Generator, device: torch.device, *, num_steps: int, iterations: int
) -> list[tuple[Float[Tensor, "r n d"], Float[Tensor, "r n d"]]]:
    """Start and end of the last simulation in each direction, in r independent flows of n samples."""
    rows, n, process = 16, 4000, Brownian(EPSILON)
    sides = [(b.mean0, b.cov0), (b.mean1, b.cov1)]

    def draw() -> list[Float[Tensor, "r n d"]]:
        return [_normal(*side, rows * n, generator).reshape(rows, n, -1).to(device) for side in sides]

    # (start, end) that each direction learns from: data at both ends, at first not coupled
    x0, x1 = draw()
    learned = [(x0, x1), (x1, x0)]
    simulated = learned
    for _ in range(iterations):
        simulated = []
        for (start, end), fresh in zip(learned, draw(), strict=True):
            drift = _fitted(start, end, num_steps, process, generator)
            kernel = euler_maruyama(drift, process.diffusion)
            simulated.append((fresh, simulate(kernel, fresh, uniform_times(num_steps), generator=generator)))
        # what one direction generated is where the other one starts; it is to end at the data
        (x0, made1), (x1, made0) = simulated
        learned = [(made0, x1), (made1, x0)]
    return simulated


def _fitted(
    start: Float[Tensor, "r n d"],
    end: Float[Tensor, "r n d"],
    num_steps: int,
    process: Brownian,
    generator: torch.Generator,
) -> VectorField:
    """Affine drift fitted to bridges between the pairs by least squares, at every time of the grid and in every row."""
    fits = {}
    for u, _ in pairwise(uniform_times(num_steps)):
        x = process.bridge(start, end, u).sample(generator)
        target = process.drift_to_end(x, end, u)
        features = torch.cat([x, torch.ones_like(x[..., :1])], -1)
        fits[float(u)] = torch.linalg.solve(features.mT @ features, features.mT @ target)
    return lambda x, u: torch.cat([x, torch.ones_like(x[..., :1])], -1) @ fits[float(u)]


def _compare(name: str, mean0: Tensor, start: Tensor, end: Tensor, expected: Moments) -> Iterator[Measurement]:
    """Sample moments of simulated ends against their law."""
    centred = end - expected.mean.to(end)
    yield worst_mean(f"{name}: mean of the end", end, expected.mean)
    yield worst_mean(f"{name}: covariance of the end", centred[:, :, None] * centred[:, None], expected.covariance)
    products = (start - mean0.to(start))[:, :, None] * centred[:, None]
    yield worst_mean(f"{name}: covariance of both ends", products, expected.cross)


def _pairs(b: GaussianBridge) -> GaussianPairs:
    return GaussianPairs(b.mean0, b.mean1, b.cov0, b.cov1, b.cross)


def _normal(mean: Tensor, covariance: Tensor, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    z = torch.randn(n, len(mean), dtype=mean.dtype, generator=generator)
    return mean + z @ torch.linalg.cholesky(covariance).mT
