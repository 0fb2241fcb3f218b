"""Normalising constants of a Gaussian mixture whose every noised law is known."""

from collections.abc import Iterator
from functools import partial
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow import smc
from sbflow.potential import MixturePotential, NaivePotential, Potential
from sbflow.process import Cosine, OrnsteinUhlenbeck, uniform_times
from sbflow.selfcheck.measurement import Measurement, mean_of, worst_mean
from sbflow.smc.particles import relative_variance
from sbflow.target import GaussianMixture
from sbflow.tensor import seeded_generator

__all__ = ["annealed_evidence", "exact_potential", "mixture", "ratios", "resampling_counts", "resampling_evidence"]

PROCESS = OrnsteinUhlenbeck(Cosine())


def mixture(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """Two correlated Gaussians of different weight, near enough to N(0, I) that the naive potential can weigh them."""
    return GaussianMixture(
        torch.tensor([[0.6, -0.3], [-0.5, 0.2]], dtype=dtype),
        torch.tensor([[[0.8, 0.2], [0.2, 0.5]], [[0.6, -0.3], [-0.3, 0.9]]]),
        torch.tensor([0.35, 0.65]),
    )


def ratios(
    potential: Potential,
    generator: torch.Generator,
    device: torch.device,
    *,
    replicates: int = 1000,
    num_particles: int = 16,
    num_steps: int = 5,
    dtype: torch.dtype = torch.float64,
    log_z: float = 0.0,
    ess_threshold: float = 0.3,
    scheme: smc.Resampling = smc.systematic,
) -> tuple[Float[Tensor, " r"], smc.Particles]:
    """Ẑ / Z of independent small samplers, and their particles."""
    like = torch.empty(replicates, num_particles, 2, dtype=dtype, device=device)
    kernel = smc.GuidedDenoising(PROCESS, potential.to(device))
    times = uniform_times(num_steps, device=device).flip(0)
    particles, _ = smc.sample(kernel, like, times, scheme=scheme, ess_threshold=ess_threshold, generator=generator)
    return (particles.log_z - log_z).exp(), particles


def resampling_counts(device: torch.device, seed: int) -> Iterator[Measurement]:
    """Every scheme chooses every particle as often as its weight says, and none of weight zero."""
    generator = seeded_generator(seed, 11)
    # no weight so small that its few offspring are far from normally distributed
    log_weights = 3 * torch.rand(15, dtype=torch.float64, generator=generator)
    log_weights = torch.cat([log_weights, log_weights.new_tensor([-torch.inf])]).to(device)
    expected = 16 * log_weights.softmax(-1)
    for name in get_args(smc.Scheme):
        ancestors = smc.resampling_scheme(name)(log_weights.expand(20_000, 16), generator)
        counts = torch.zeros(20_000, 16, dtype=torch.float64, device=device)
        counts = counts.scatter_add(1, ancestors, torch.ones_like(counts))
        yield worst_mean(f"{name} resampling: offspring", counts, expected)


def resampling_evidence(device: torch.device, seed: int) -> Iterator[Measurement]:
    """E[Ẑ] = Z with every scheme, resampling at every step."""
    for key, name in enumerate(get_args(smc.Scheme)):
        potential = NaivePotential(mixture(), PROCESS)
        scheme, generator = smc.resampling_scheme(name), seeded_generator(seed, 12, key)
        found, _ = ratios(potential, generator, device, ess_threshold=1.0, scheme=scheme)
        yield mean_of(f"{name} resampling: mean of Ẑ / Z", found, 1.0)


def exact_potential(device: torch.device, seed: int) -> Iterator[Measurement]:
    """With the exact potential only the discretisation of time is left, so that more steps make log Ẑ better."""
    law, log_z = mixture(), -0.7
    potential = MixturePotential(law.means, law.covariances, law.weights, PROCESS, log_z)
    run = partial(ratios, potential, device=device, log_z=log_z, replicates=600)
    found = {
        k: run(seeded_generator(seed, 13, k), num_steps=k, num_particles=40, ess_threshold=0.0)[0] for k in (4, 16, 64)
    }
    yield mean_of("PDDS, exact potential: mean of Ẑ / Z", found[4], 1.0)
    for few, many in ((4, 16), (16, 64)):
        yield _falling(f"PDDS: error of log Ẑ, {many} steps over {few}", found[many].log(), found[few].log())
    found[0], particles = run(seeded_generator(seed, 13), num_particles=200, num_steps=8, ess_threshold=0.95)
    # the two have one mean; their difference is measured because they share their noise
    single, actual = relative_variance(particles.family_changes), (found[0] - 1) ** 2
    difference = mean_of("PDDS: squared error bar of one run", single - actual, 0.0)
    yield difference._replace(measured=float(single.mean()), expected=float(actual.mean()))


def annealed_evidence(device: torch.device, seed: int) -> Iterator[Measurement]:
    """E[Ẑ] = Z and weighted means by annealed sequential Monte Carlo with both kinds of moves."""
    law = mixture().to(device)
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(law, PROCESS))
    like = torch.empty(500, 50, 2, dtype=torch.float64, device=device)
    for key, (name, moves) in enumerate({"MALA": smc.Mala(), "HMC": smc.Hmc()}.items()):
        particles, _ = smc.sample_annealed(
            kernel, like, moves=moves, num_steps=4, pilot_particles=200, generator=seeded_generator(seed, 14, key)
        )
        yield mean_of(f"annealed SMC, {name}: mean of Ẑ / Z", particles.log_z.exp(), 1.0)
        # Ẑ-weighted sums over a run are unbiased for Z E[x]
        weights = (particles.log_weights + particles.log_z[:, None]).exp()[..., None]
        yield worst_mean(f"annealed SMC, {name}: mean of x", (weights * particles.x).sum(1), law.weights @ law.means)


def _falling(name: str, fine: Float[Tensor, " r"], coarse: Float[Tensor, " r"]) -> Measurement:
    """Ratio of two root mean squares of independent samples, which must lie below 1."""
    (upper, upper_stderr), (lower, lower_stderr) = (_root_mean_square(x) for x in (fine, coarse))
    ratio = upper / lower
    stderr = ratio * ((upper_stderr / upper) ** 2 + (lower_stderr / lower) ** 2) ** 0.5
    return Measurement(name, ratio, 1.0, stderr, relation="<")


def _root_mean_square(x: Float[Tensor, " r"]) -> tuple[float, float]:
    """Root mean square and its standard error, by the delta method."""
    square = x.square()
    root = float(square.mean()) ** 0.5
    return root, float(square.std()) / len(x) ** 0.5 / (2 * root)
