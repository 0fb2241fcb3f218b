"""Grids of times found by pilot runs and by the path cost."""

import pytest
import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MIXTURE, Components, MixtureDensity
from problems_targets import needs_data

from sbflow import smc
from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.potential import MixturePotential, NaivePotential
from sbflow.process import OrnsteinUhlenbeck, uniform_times
from sbflow.smc.schedule import TunedTimes, follow, tune_times
from sbflow.target import Ionosphere, Mixture2D, Sonar
from sbflow.whitening import Laplace

PROCESS = OrnsteinUhlenbeck()
ONE = torch.ones(1, dtype=torch.float64)
FAR = Components(torch.tensor([[2.75]]).double(), torch.tensor([[[0.0625]]]).double(), ONE, 0.4)
NARROW = Components(
    torch.tensor([[2.0, 0.5], [-1.5, 1.0]], dtype=torch.float64),
    torch.tensor([[[0.05, 0.01], [0.01, 0.2]], [[0.3, -0.1], [-0.1, 0.05]]], dtype=torch.float64),
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    0.9,
)


def six_modes() -> Components:
    target = Mixture2D()
    return Components(target.means.double() / 2.5, target.covariances.double() / 6.25, target.weights.double(), 0.0)


def five_modes_in_fifty_dimensions() -> Components:
    generator = torch.Generator().manual_seed(5)
    means = 0.8 * torch.randn(5, 50, generator=generator, dtype=torch.float64)
    variances = 0.1 + 0.3 * torch.rand(5, 50, generator=generator, dtype=torch.float64)
    weights = torch.tensor([0.1, 0.15, 0.2, 0.25, 0.3], dtype=torch.float64)
    return Components(means, variances.diag_embed(), weights, -2.0)


def like(replicates: int, n: int, d: int = 2) -> torch.Tensor:
    return torch.empty(replicates, n, d, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(components: Components, coefficient: str = "tweedie") -> smc.GuidedDenoising:
    potential = MixturePotential(*components[:3], PROCESS, components.log_z)
    return smc.GuidedDenoising(PROCESS, potential, coefficient)


def variances(components: Components, times: torch.Tensor, replicates: int = 20, n: int = 500) -> torch.Tensor:
    """Mean variance of the increments of each step, of runs whose Ẑ is checked by the way."""
    dim = components.means.shape[1]
    particles, path = smc.sample(exact(components), like(replicates, n, dim), times, generator=seeded(7))
    assert_mean_close((particles.log_z - components.log_z).exp(), 1.0)
    return path.increment_variance[1:].mean(-1)


# by how much the grid of equal costs lowers the sum of the variances of 32 even steps, as measured, and a bound
PROBLEMS = {
    "far": (FAR, 0.75),
    "six_modes": (six_modes(), 0.4),
    "fifty_dimensions": (five_modes_in_fifty_dimensions(), 0.85),
}
problems = [
    pytest.param(*problem, id=name, marks=pytest.mark.slow if name == "fifty_dimensions" else ())
    for name, problem in PROBLEMS.items()
]


@pytest.mark.parametrize(("components", "share"), problems)
def test_the_path_cost_lowers_the_spread_of_the_weights_to_what_it_predicts(components, share):
    dim = components.means.shape[1]
    tuned = tune_times(exact(components), like(2, 500, dim), 32, cost="path", generator=seeded())
    assert tuned.times[0] == 1 and tuned.times[-1] == 0 and (tuned.times.diff() < 0).all()
    assert tuned.predicted_variance == pytest.approx(tuned.length**2 / 64, rel=1e-3)
    found = variances(components, tuned.times)
    assert 0.95 < found.sum() / tuned.predicted_variance < 1.2
    assert found.max() / found.mean() < 1.35
    assert found.sum() < share * variances(components, uniform_times(32).flip(0)).sum()


def test_pilots_equalise_and_lower_the_variance_of_the_increments():
    tuned = tune_times(exact(NARROW), like(2, 500), 12, generator=seeded())
    before = variances(NARROW, uniform_times(12).flip(0), 40, 200)
    after = variances(NARROW, tuned.times, 40, 200)
    assert after.max() / after.mean() < 1.35 < before.max() / before.mean()
    assert after.sum() < 0.95 * before.sum()
    assert after.sum().item() == pytest.approx(tuned.predicted_variance, rel=0.15)


def test_both_costs_find_the_same_length_and_grid_where_the_potential_is_exact():
    path, pilot = (
        tune_times(exact(MIXTURE), like(2, 400), 16, cost=cost, generator=seeded()) for cost in ("path", "pilot")
    )
    assert path.length == pytest.approx(pilot.length, rel=0.1)
    assert (path.times - pilot.times).abs().max() < 0.04


def test_a_share_of_even_steps_is_paid_for_as_predicted():
    plain, shared = (
        tune_times(exact(FAR), like(2, 500, 1), 32, cost="path", uniform_share=share, generator=seeded())
        for share in (0.0, 0.5)
    )
    assert shared.length == plain.length
    assert shared.predicted_variance > 1.02 * plain.predicted_variance
    assert variances(FAR, shared.times).sum().item() == pytest.approx(shared.predicted_variance, rel=0.2)


@pytest.mark.parametrize("cost", ["pilot", "path"])
def test_the_pilot_draws_from_the_generator(cost):
    one, same, other = (
        tune_times(exact(GAUSSIAN), like(1, 50), 4, cost=cost, generator=seeded(k)).times for k in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.dtype == torch.float64


def test_a_grid_knows_what_it_was_made_with():
    tuned = tune_times(exact(GAUSSIAN, "lambda"), like(3, 40), 4, chunk_size=7, generator=seeded())
    assert tuned[3:] == (120, "pilot", "lambda")


def test_following_runs_leads_to_the_grid_of_the_pilots():
    kernel, grid = exact(NARROW), uniform_times(12).flip(0)
    for seed in range(20):
        _, path = smc.sample(kernel, like(1, 500), grid, generator=seeded(seed))
        found = follow(grid, path, 0.3, 500, "tweedie")
        assert isinstance(found, TunedTimes) and (found.times.diff() < 0).all()
        grid = found.times
    assert (grid - tune_times(kernel, like(2, 500), 12, generator=seeded()).times).abs().max() < 0.03


def test_a_small_rate_takes_a_small_step():
    grid = uniform_times(12).flip(0)
    _, path = smc.sample(exact(NARROW), like(1, 500), grid, generator=seeded())
    small, whole = (follow(grid, path, rate, 500, "tweedie").times for rate in (0.05, 1.0))
    assert torch.allclose(small, grid + 0.05 * (whole - grid))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost": "score"}, "cost must be 'pilot' or 'path', got 'score'"),
        ({"rounds": 0}, "need rounds of at least 1 and damping in .0, 1., got 0 and 0.5"),
        ({"damping": 0.0}, "damping in .0, 1., got 8 and 0.0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"num_steps": 0, "cost": "path"}, "num_steps of at least 1"),
        ({"uniform_share": 2.0}, "uniform_share in .0, 1."),
        ({"ess_threshold": 2.0}, "ess_threshold must lie in"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tune_times(exact(GAUSSIAN), like(1, 10), **{"num_steps": 3} | options)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [8, 16])
@pytest.mark.parametrize("posterior", [Sonar, Ionosphere])
@needs_data
def test_pilots_lower_the_spread_for_the_naive_potential_of_a_posterior(posterior, num_steps):
    target = posterior()
    settings = {"num_steps": num_steps, "num_particles": 500, "coefficient": "tweedie"}
    sums = []
    for time_grid in ("uniform", "adaptive"):
        module = ParticleDenoisingDiffusionSampler(target, Laplace(), PROCESS, time_grid=time_grid, **settings)
        module.whiten()
        module.prepare(trained=False)
        particles, path, *_ = module.draw(module.like(20, 500), seeded(1), num_steps=None, trained=False)
        sums.append(path.increment_variance[1:].sum(0).mean())
        # the mean of log Ẑ: that of Ẑ hangs on the heavy tail of naive weights
        assert abs(particles.log_z.mean() - target.log_normalizer) < 0.1
    assert sums[1] < 0.85 * sums[0]


def test_the_naive_potential_can_be_tuned_for_whatever_its_weights_do():
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(MixtureDensity(MIXTURE), PROCESS))
    tuned = tune_times(kernel, like(2, 200), 6, generator=seeded())
    particles, _ = smc.sample(kernel, like(200, 100), tuned.times, generator=seeded(1))
    assert_mean_close((particles.log_z - MIXTURE.log_z).exp(), 1.0)
