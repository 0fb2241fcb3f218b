import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MIXTURE, MixtureDensity

from sbflow import smc
from sbflow.potential import MixturePotential, NaivePotential
from sbflow.process import OrnsteinUhlenbeck, uniform_times
from sbflow.smc.bound import upper_bounds

PROCESS = OrnsteinUhlenbeck()
TIMES = uniform_times(6).flip(0)


def bounds(components, kernel, n=20_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return upper_bounds(kernel, MixtureDensity(components).sample(n, generator=generator), TIMES, generator=generator)


def exact(components):
    return smc.GuidedDenoising(PROCESS, MixturePotential(*components[:3], PROCESS, components.log_z))


def naive(components):
    return smc.GuidedDenoising(PROCESS, NaivePotential(MixtureDensity(components), PROCESS))


def test_the_reciprocal_of_the_weights_estimates_the_reciprocal_of_z():
    # E[1 / w] = 1 / Z under the target's path law: the weights are those of importance sampling
    for components, kernel in ((GAUSSIAN, exact(GAUSSIAN)), (MIXTURE, exact(MIXTURE)), (GAUSSIAN, naive(GAUSSIAN))):
        assert_mean_close((components.log_z - bounds(components, kernel)).exp(), 1.0)


def test_log_z_lies_between_the_two_bounds():
    for components in (GAUSSIAN, MIXTURE):
        for kernel in (exact(components), naive(components)):
            upper = bounds(components, kernel)
            _, path = smc.sample(kernel, torch.empty(200, 100, 2, dtype=torch.float64), TIMES, ess_threshold=0.0)
            lower = path.increment_mean.sum(0)
            assert upper.mean() > components.log_z - 5 * upper.std() / len(upper) ** 0.5
            assert lower.mean() < components.log_z + 5 * lower.std() / len(lower) ** 0.5


def test_the_bound_tightens_with_the_potential():
    assert bounds(MIXTURE, exact(MIXTURE)).mean() < bounds(MIXTURE, naive(MIXTURE)).mean() - 0.1
