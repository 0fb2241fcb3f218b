"""Reward-tilted processes against the closed form of their discretisation."""

import math

import pytest
import torch
from assertions import assert_mean_close

from sbflow import smc
from sbflow.integrator import euler_maruyama
from sbflow.potential import Potential
from sbflow.process import Brownian, uniform_times
from sbflow.tensor import seeded_generator

STEPS, NOISE = 6, 0.7
SLOPE = torch.tensor([[-0.6, 0.3], [0.1, 0.4]], dtype=torch.float64)
WANTED = torch.tensor([1.0, -0.5], dtype=torch.float64)
SHARPNESS = torch.tensor([2.0, 0.5], dtype=torch.float64)
TIMES = uniform_times(STEPS).flip(0)
INPUTS = torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drift(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    return (1 - 0.5 * u) * x @ SLOPE.T + u


def reward(x: torch.Tensor) -> torch.Tensor:
    return -0.5 * (SHARPNESS * (x - WANTED) ** 2).sum(-1)


KERNEL = euler_maruyama(drift, Brownian(NOISE).diffusion)


class AtTheEnd(Potential):
    """No guess before the end."""

    def log_g(self, z, t):
        return reward(z) * (t == 1)


def smoothed(variance: float = 0.4) -> smc.SmoothedReward:
    return smc.SmoothedReward(reward, drift, variance, dim=2, num_draws=4).double()


TWISTS = {"smoothed": smoothed(), "sharp": smoothed(0.0), "at the end": AtTheEnd()}


def exact() -> tuple[torch.Tensor, torch.Tensor]:
    """Log E[e^r] of the discretised process from each input, and the tilted mean of its end."""
    mean, covariance, step = INPUTS, torch.zeros(2, 2, dtype=torch.float64), 1 / STEPS
    eye = torch.eye(2, dtype=torch.float64)
    for k in range(STEPS):
        u = torch.tensor(k * step, dtype=torch.float64)
        map_ = eye + step * (1 - 0.5 * u) * SLOPE
        mean = mean + step * drift(mean, u)
        covariance = map_ @ covariance @ map_.T + step * NOISE * eye
    tilt = eye + covariance @ SHARPNESS.diag()
    gap = mean - WANTED
    quadratic = torch.einsum("ni,ij,nj->n", gap, SHARPNESS.diag() @ torch.linalg.inv(tilt), gap)
    tilted = WANTED + gap @ torch.linalg.inv(tilt).T
    return -0.5 * torch.linalg.slogdet(tilt)[1] - 0.5 * quadratic, tilted


def run(twist: Potential, n: int = 8, ess_threshold: float = 0.5) -> tuple[smc.Particles, smc.SMCPath]:
    like = torch.empty(len(INPUTS), n, 2, dtype=torch.float64)
    kernel = smc.TwistedKernel(KERNEL, twist, INPUTS)
    return smc.sample(kernel, like, TIMES, ess_threshold=ess_threshold, generator=seeded(1))


@pytest.mark.parametrize("name", TWISTS)
@pytest.mark.parametrize("ess_threshold", [0.0, 0.7])
def test_the_mean_reward_is_unbiased_for_the_discretised_process_whatever_the_twist(name, ess_threshold):
    particles, _ = run(TWISTS[name], ess_threshold=ess_threshold)
    log_z, tilted = exact()
    ratio = (particles.log_z - log_z).exp()
    assert_mean_close(ratio, 1.0)
    weighted = (particles.log_weights.exp()[..., None] * particles.x).sum(1)
    assert_mean_close(ratio[:, None] * (weighted - tilted), torch.zeros(2))


def test_a_smoothed_guess_of_the_reward_spares_more_particles_than_none():
    log_z, _ = exact()
    spread = {name: float((run(TWISTS[name])[0].log_z - log_z).square().mean()) for name in TWISTS}
    assert spread["smoothed"] < 0.7 * spread["at the end"]


def test_without_a_reward_translations_are_plain_and_their_weights_equal():
    twist = smc.SmoothedReward(lambda x: 0 * x[:, 0], drift, 0.3, dim=2).double()
    particles, path = run(twist)
    assert torch.equal(particles.log_z, torch.zeros(len(INPUTS), dtype=torch.float64))
    assert torch.allclose(path.ess, torch.full_like(path.ess, 8.0))
    assert not path.resampled.any()


def test_a_reward_of_minus_infinity_rules_an_end_out():
    twist = smc.SmoothedReward(lambda x: torch.where(x[:, 0] > -0.9, 0.0, -torch.inf), drift, 0.3, dim=2).double()
    particles, _ = run(twist, n=40)
    outside = particles.x[..., 0] <= -0.9
    assert outside.any() and torch.equal(particles.log_weights == -torch.inf, outside)


def test_the_twist_is_the_reward_itself_at_the_end_and_a_function_everywhere():
    twist, x = smoothed(), INPUTS[:5]
    assert torch.allclose(twist.log_g(x, torch.ones((), dtype=torch.float64)), reward(x), rtol=1e-12)
    half = torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(twist.log_g(x, half), twist.log_g(x, half))
    sharp = smoothed(0.0).log_g(x, half)
    assert torch.allclose(sharp, reward(x + 0.5 * drift(x, half)), rtol=1e-12)


def test_impossible_options_are_refused():
    for options in ({"variance": -1.0}, {"variance": math.nan}, {"variance": 1.0, "num_draws": 3}):
        with pytest.raises(ValueError, match=r"variance must be|num_draws must be"):
            smc.SmoothedReward(reward, drift, dim=2, **options)
    with pytest.raises(ValueError, match="one set of particles for each of 300 inputs, got 2"):
        smc.TwistedKernel(KERNEL, AtTheEnd(), INPUTS).start(torch.empty(2, 3, 2, dtype=torch.float64))


def test_the_draws_of_a_twist_are_not_the_noise_of_a_run_with_the_same_seed():
    twist = smc.SmoothedReward(reward, drift, 1.0, dim=16, num_draws=8, seed=3)
    noise = torch.randn(4, 16, generator=seeded_generator(3))
    assert not torch.isclose(twist.noise[:4], noise).any()
