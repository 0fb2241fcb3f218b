"""Pilot runs: ladders of exponents, annealing."""

import math

import pytest
import torch
from assertions import assert_mean_close
from problems import MIXTURE, Components, MixtureDensity

from sbflow import smc
from sbflow.potential import NaivePotential
from sbflow.process import OrnsteinUhlenbeck, uniform_times
from sbflow.target import CallableTarget, CountingTarget

PROCESS = OrnsteinUhlenbeck()
NARROW = Components(
    torch.tensor([[2.0, 0.5], [-1.5, 1.0]], dtype=torch.float64),
    torch.tensor([[[0.05, 0.01], [0.01, 0.2]], [[0.3, -0.1], [-0.1, 0.05]]], dtype=torch.float64),
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    0.9,
)


def like(replicates: int, n: int, d: int = 2) -> torch.Tensor:
    return torch.empty(replicates, n, d, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive(target) -> smc.GuidedDenoising:
    return smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))


@pytest.mark.parametrize("conditional_ess", [0.5, 0.9])
def test_exponents_keep_the_conditional_effective_sample_size(conditional_ess):
    ladder = smc.tune(
        naive(MixtureDensity(NARROW)),
        like(1, 1000),
        torch.zeros(1, dtype=torch.float64),
        moves=smc.Mala(),
        conditional_ess=conditional_ess,
        generator=seeded(),
    )
    assert ladder.exponents[-1] == 1 and (ladder.exponents.diff() > 0).all()
    # the first step starts at draws from the reference, where the share is known by other draws
    x = torch.randn(200_000, 2, dtype=torch.float64)
    log_g = naive(MixtureDensity(NARROW)).field(x, torch.zeros((), dtype=torch.float64)).log_g
    share = float(smc.effective_sample_size(ladder.exponents[0] * log_g)) / len(x)
    assert share == pytest.approx(conditional_ess, abs=0.05)


def test_a_first_weight_that_is_harmless_needs_no_tempering():
    flat = CallableTarget(lambda x: -0.5 * x.square().sum(1), 2)
    ladder = smc.tune(
        naive(flat), like(1, 100), uniform_times(3).flip(0), moves=smc.Mala(), conditional_ess=0.9, generator=seeded()
    )
    assert ladder.exponents.tolist() == [1.0] and len(ladder.step_sizes) == 3


MOVES = {
    "hmc": smc.Hmc(num_leapfrog=3),
    "mala": smc.Mala(num_moves=3),
    "waste-free": smc.Mala(num_moves=3, waste_free=True),
}


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("num_steps", [None, 5])
def test_annealing_finds_the_constant_and_the_moments_of_separate_modes(moves, num_steps):
    particles, path = smc.sample_annealed(
        naive(MixtureDensity(NARROW)), like(100, 60), moves=moves, num_steps=num_steps, generator=seeded()
    )
    assert num_steps in (None, len(path.ess))
    assert_mean_close((particles.log_z - NARROW.log_z).exp(), 1.0)
    weights = (particles.log_weights + particles.log_z[:, None] - NARROW.log_z).exp()[..., None]
    assert_mean_close((weights * particles.x).sum(1), NARROW.weights @ NARROW.means)


def test_annealing_a_flat_potential_is_exact_at_any_number_of_levels():
    flat = CallableTarget(lambda x: -0.5 * x.square().sum(1), 2)
    for num_steps in (None, 1, 4):
        particles, path = smc.sample_annealed(naive(flat), like(2, 50), num_steps=num_steps, generator=seeded())
        assert torch.allclose(particles.log_z, torch.full((2,), math.log(2 * math.pi), dtype=torch.float64))
        assert len(path.ess) == (num_steps or 1)


def test_annealing_inside_a_bounded_support_is_unbiased():
    law = torch.distributions.Normal(0.5, 0.6)
    target = CallableTarget(lambda x: torch.where(x[:, 0] > 0.2, law.log_prob(x[:, 0]), -torch.inf), 1)
    particles, _ = smc.sample_annealed(
        naive(target), like(400, 60, 1), moves=smc.Mala(), num_steps=4, generator=seeded()
    )
    assert_mean_close(particles.log_z.exp() / (1 - law.cdf(torch.tensor(0.2))), 1.0)


def test_the_cost_of_annealing_is_as_stated():
    target = CountingTarget(MixtureDensity(MIXTURE))
    smc.sample_annealed(
        naive(target), like(3, 20), moves=smc.Hmc(4, 2), num_steps=6, pilot_particles=30, generator=seeded()
    )
    pilot = target.density_evaluations - 60 * (1 + 5 * 8)
    # the pilot's own number of levels is its own business
    assert pilot % 30 == 0 and (pilot // 30 - 1) % (4 * 4) == 0 and pilot // 30 > 8 * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditional_ess": 1.0}, r"conditional_ess must lie in \(0, 1\), got 1.0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"pilot_particles": 0}, "pilot_particles must be at least 1, got 0"),
    ],
)
def test_impossible_options_of_annealing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        smc.sample_annealed(naive(MixtureDensity(MIXTURE)), like(1, 10), **options)
