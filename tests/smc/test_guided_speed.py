"""Guided denoising that mixes faster than the noise falls."""

import math
from itertools import pairwise

import pytest
import torch
from assertions import assert_mean_close
from problems import MIXTURE, MixtureDensity

from sbflow import smc
from sbflow.potential import MixturePotential, NaivePotential
from sbflow.process import Linear, OrnsteinUhlenbeck, uniform_times
from sbflow.smc.bound import upper_bounds

PROCESS = OrnsteinUhlenbeck(Linear(0.1, 4.0))
TIMES = uniform_times(5).flip(0)
EXACT = MixturePotential(*MIXTURE[:3], PROCESS, MIXTURE.log_z)
NAIVE = NaivePotential(MixtureDensity(MIXTURE), PROCESS)
COEFFICIENTS = ("lambda", "exponential", "tweedie")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(field: smc.Field) -> smc.Field:
    return smc.Field(*(part.flatten(0, 1) for part in field))


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("potential", [EXACT, NAIVE], ids=["exact", "naive"])
def test_weight_times_proposal_is_density_times_noising_path_for_every_particle(coefficient, potential):
    kernel = smc.GuidedDenoising(PROCESS, potential, coefficient, speed=2.5)
    particles = smc.init(kernel, torch.empty(2, 6, 2, dtype=torch.float64), TIMES[0], generator=seeded())
    x = particles.x.flatten(0, 1)
    log_ratio = -torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
    for t, s in pairwise(TIMES):
        law = kernel.propose(x, flat(particles.field), t, s)
        particles, _ = smc.step(particles, kernel, t, s, ess_threshold=0.0, generator=seeded(1))
        x_s = particles.x.flatten(0, 1)
        back = kernel.noising(x_s, flat(particles.field), s, t)
        keep = (PROCESS.schedule.alpha_bar(t) / PROCESS.schedule.alpha_bar(s)) ** 2.5
        assert float(back.std) == pytest.approx(math.sqrt(1 - keep))
        log_ratio += back.log_prob(x) - law.log_prob(x_s)
        x = x_s
    log_weights = (particles.log_weights + particles.log_z[:, None] + math.log(6)).flatten()
    assert torch.allclose(log_weights, MixtureDensity(MIXTURE).log_prob(x) + log_ratio, rtol=1e-9, atol=1e-9)
    assert log_weights.std() > 1e-3


@pytest.mark.parametrize("speed", [1.5, 4.0])
def test_the_estimate_of_z_stays_unbiased(speed):
    kernel = smc.GuidedDenoising(PROCESS, NAIVE, speed=speed)
    particles, _ = smc.sample(kernel, torch.empty(3000, 10, 2, dtype=torch.float64), TIMES, generator=seeded())
    assert_mean_close((particles.log_z - MIXTURE.log_z).exp(), 1.0)


def test_the_reciprocal_of_the_weights_of_noised_samples_estimates_the_reciprocal_of_z():
    kernel = smc.GuidedDenoising(PROCESS, EXACT, speed=2.0)
    x0 = MixtureDensity(MIXTURE).sample(20_000, generator=seeded())
    bounds = upper_bounds(kernel, x0, TIMES, generator=seeded(1))
    assert_mean_close((MIXTURE.log_z - bounds).exp(), 1.0)


def test_at_speed_one_the_way_back_is_the_process():
    kernel = smc.GuidedDenoising(PROCESS, EXACT)
    x = torch.randn(5, 2, dtype=torch.float64, generator=seeded())
    law = kernel.noising(x, kernel.field(x, TIMES[2]), TIMES[2], TIMES[1])
    expected = PROCESS.kernel(x, TIMES[2], TIMES[1])
    assert torch.equal(law.mean, expected.mean) and torch.equal(law.std, expected.std)


@pytest.mark.parametrize("speed", [0.5, math.nan, math.inf])
def test_an_impossible_speed_is_refused(speed):
    with pytest.raises(ValueError, match="speed must be finite and at least 1"):
        smc.GuidedDenoising(PROCESS, EXACT, speed=speed)
