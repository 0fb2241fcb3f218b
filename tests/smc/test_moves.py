"""Markov moves leave the law of a level as it is."""

import math

import pytest
import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MixtureDensity

from sbflow import smc
from sbflow.potential import NaivePotential
from sbflow.process import OrnsteinUhlenbeck, uniform_times
from sbflow.smc.engine import Engine, Level
from sbflow.target import CallableTarget, CountingTarget

PROCESS = OrnsteinUhlenbeck()
ZERO = torch.zeros((), dtype=torch.float64)
TIMES = uniform_times(3).flip(0)
MOVES = {"mala": smc.Mala(), "hmc": smc.Hmc(num_leapfrog=4)}
every_move = pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def like(replicates: int, n: int, d: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.empty(replicates, n, d, dtype=dtype)


def engine(target, moves: smc.Hmc, **options) -> Engine:
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))
    return Engine(kernel, moves=moves, generator=seeded(), **options)


def at(engine: Engine, x: torch.Tensor) -> smc.Particles:
    particles, _ = engine.init(x, Level(ZERO))
    return particles._replace(x=x, field=engine.evaluate(x, ZERO))


@every_move
@pytest.mark.parametrize("step_size", [0.2, 0.7])
def test_moves_leave_a_correlated_gaussian_as_it_is(moves, step_size):
    target = MixtureDensity(GAUSSIAN)
    runner = engine(target, moves)
    particles = at(runner, target.sample(20_000, generator=seeded(1))[None])
    start = particles.x
    for _ in range(4):
        particles, rate, _ = runner.move(particles, Level(ZERO), step_size)
        assert 0.1 < rate < 1
    x = particles.x[0]
    assert (x != start[0]).any(-1).double().mean() > 0.3
    assert_mean_close(x, GAUSSIAN.means[0])
    centred = x - GAUSSIAN.means[0]
    assert_mean_close(centred[:, :, None] * centred[:, None], GAUSSIAN.covariances[0])


@every_move
def test_moves_lead_from_anywhere_to_the_law_of_a_tempered_level(moves):
    # γ = exp(−2 x²) / √(2π) in one dimension: g^e N(0, 1) is Gaussian of precision 1 + 3 e
    target = CallableTarget(lambda x: -2 * x.square().sum(1), 1)
    runner, exponent = engine(target, moves), 0.4
    particles = at(runner, torch.zeros(1, 20_000, 1, dtype=torch.float64))
    for _ in range(60 // moves.num_leapfrog):
        particles, _, _ = runner.move(particles, Level(ZERO, exponent), 0.6)
    assert_mean_close(particles.x[0], 0.0)
    assert_mean_close(particles.x[0] ** 2, 1 / (1 + 3 * exponent))


@every_move
def test_moves_are_reversible(moves):
    # in equilibrium, going from a cell to another is as frequent as coming back
    target = MixtureDensity(GAUSSIAN)
    runner = engine(target, moves)
    particles = at(runner, target.sample(40_000, generator=seeded(1))[None])
    moved, _, _ = runner.move(particles, Level(ZERO), 0.4)
    cell = lambda x: (x[0] > GAUSSIAN.means[0]).long() @ torch.tensor([1, 2])  # noqa: E731
    before, after = (torch.nn.functional.one_hot(cell(state.x), 4) for state in (particles, moved))
    flow = (before[:, :, None] * after[:, None]).double()
    assert (flow.mean(0) + torch.eye(4) > 0.001).all()
    assert_mean_close(flow - flow.mT, 0.0)


@every_move
def test_the_field_handed_on_is_that_of_the_position(moves):
    runner = engine(MixtureDensity(GAUSSIAN), moves)
    particles, _ = runner.init(like(2, 50), Level(ZERO))
    moved, rate, num_nan = runner.move(particles, Level(ZERO), 0.5)
    fresh = runner.evaluate(moved.x, ZERO)
    assert torch.allclose(moved.field.log_g, fresh.log_g) and torch.allclose(moved.field.grad_log_g, fresh.grad_log_g)
    assert (rate > 0).all() and (num_nan == 0).all()


@pytest.mark.parametrize(("num_leapfrog", "num_moves"), [(1, 1), (1, 3), (5, 2)])
def test_a_run_costs_one_evaluation_per_particle_level_and_leapfrog_step(num_leapfrog, num_moves):
    target = CountingTarget(MixtureDensity(GAUSSIAN))
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))
    moves = smc.Hmc(num_leapfrog, num_moves)
    smc.sample(kernel, like(2, 10), TIMES, moves=moves, step_sizes=torch.full((3,), 0.1), generator=seeded())
    assert target.density_evaluations == target.gradient_evaluations == 20 * (4 + 3 * num_leapfrog * num_moves)


@every_move
@pytest.mark.parametrize("outside", [-torch.inf, torch.nan])
def test_no_particle_moves_out_of_the_support(moves, outside):
    # the half plane x > 0 of a Gaussian: the moves keep the half Gaussian, mean √(2 / π)
    target = CallableTarget(
        lambda x: torch.where(x[:, 0] > 0, -0.5 * x.square().sum(1), outside) - math.log(2 * math.pi), 2
    )
    runner = engine(target, moves)
    particles = at(runner, torch.randn(1, 20_000, 2, dtype=torch.float64).abs())
    refused = 0
    for _ in range(3):
        particles, rate, num_nan = runner.move(particles, Level(ZERO), 0.9 / moves.num_leapfrog)
        refused += int(num_nan)
        assert rate < 1
    assert (particles.x[..., 0] > 0).all() and (refused > 0) == math.isnan(outside)
    assert_mean_close(particles.x[0, :, 0], math.sqrt(2 / math.pi))


@pytest.mark.parametrize("moves", [smc.Mala(), smc.Hmc(num_leapfrog=5)], ids=["mala", "hmc"])
def test_step_sizes_are_tuned_to_the_acceptance_wanted(moves):
    # precision 2000 in ten dimensions: many steps are far below the longest one
    target = CallableTarget(lambda x: -1000 * x.square().sum(1), 10)
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))
    times = torch.zeros(1, dtype=torch.float64)
    ladder = smc.tune(kernel, like(1, 500, 10), times, moves=moves, conditional_ess=0.5, generator=seeded())
    assert ladder.exponents[-1] == 1 and len(ladder.step_sizes) == len(ladder.exponents) - 1
    _, path = smc.sample(kernel, like(1, 500, 10), **ladder._asdict(), moves=moves, generator=seeded(1))
    assert path.acceptance[0].isnan().all()
    free = ladder.step_sizes < 0.7 * moves.longest_step
    off = path.acceptance[1:, 0][free] - moves.target_acceptance
    # one move per level leaves the particles of a run a little behind those of the pilot
    assert free.sum() > 4 and off.abs().max() < 0.25 and abs(off.mean()) < 0.05


def test_rows_without_moves_have_no_acceptance():
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(MixtureDensity(GAUSSIAN), PROCESS))
    _, path = smc.sample(kernel, like(2, 10), TIMES, generator=seeded())
    assert path.acceptance.isnan().all() and path.acceptance.shape == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moves": smc.Mala()}, "moves and step_sizes must be given together"),
        ({"moves": smc.Mala(), "step_sizes": torch.tensor([0.1, 0.0, 0.1])}, "step_sizes must be 3 positive numbers"),
        ({"moves": smc.Mala(), "step_sizes": torch.tensor([0.1, 0.1])}, "step_sizes must be 3 positive numbers"),
        (
            {"moves": smc.Mala(num_moves=2, waste_free=True), "step_sizes": torch.full((3,), 0.1)},
            "waste_free needs a multiple of num_moves . 1 = 3 particles, got 10",
        ),
        ({"exponents": torch.tensor([0.5, 0.5, 1.0])}, "exponents must be positive, increase and end at 1"),
        ({"exponents": torch.tensor([0.5])}, "exponents must be positive, increase and end at 1"),
        ({"chunk_size": 0}, "chunk_size must be null, a number from 1 on or a memory such as '2GB', got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(MixtureDensity(GAUSSIAN), PROCESS))
    with pytest.raises(ValueError, match=message):
        smc.sample(kernel, like(1, 10), TIMES, **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: smc.Hmc(num_leapfrog=0), "num_leapfrog must be at least 1, got 0"),
        (lambda: smc.Mala(num_moves=0), "num_moves must be at least 1, got 0"),
        (lambda: smc.Mala(target_acceptance=1.0), r"target_acceptance must lie in \(0, 1\), got 1"),
    ],
)
def test_impossible_moves_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
