"""E[Ẑ] = Z, by many small independent samplers in one sweep."""

import math
from typing import get_args

import pytest
import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MIXTURE, Components, MixtureDensity, linear_regression

from sbflow import smc
from sbflow.potential import MixturePotential, NaivePotential, Potential
from sbflow.process import Cosine, Linear, OrnsteinUhlenbeck, uniform_times
from sbflow.smc.particles import relative_variance
from sbflow.target import CallableTarget

PROCESS = OrnsteinUhlenbeck(Cosine())
PROBLEMS = {"gaussian": GAUSSIAN, "mixture": MIXTURE}
COEFFICIENTS = ("lambda", "exponential", "tweedie")
# milder than the mixture, so that the naive potential leaves Ẑ with a finite variance to measure
MILD = Components(
    torch.tensor([[0.5, -0.3], [-0.4, 0.2]], dtype=torch.float64),
    torch.tensor([[[0.9, 0.1], [0.1, 0.6]], [[0.7, -0.2], [-0.2, 0.8]]], dtype=torch.float64),
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    0.9,
)


def exact(components: Components) -> MixturePotential:
    return MixturePotential(*components[:3], PROCESS, components.log_z)


def run(
    potential: Potential,
    *,
    d: int = 2,
    replicates: int = 2000,
    n: int = 16,
    num_steps: int = 5,
    ess_threshold: float = 0.5,
    coefficient: str = "exponential",
    seed: int = 0,
    **options,
) -> tuple[smc.Particles, smc.SMCPath]:
    settings = {"times": uniform_times(num_steps).flip(0), "ess_threshold": ess_threshold, **options}
    return smc.sample(
        smc.GuidedDenoising(PROCESS, potential, coefficient),
        torch.empty(replicates, n, d, dtype=torch.float64),
        generator=torch.Generator().manual_seed(seed),
        **settings,
    )


@pytest.mark.parametrize("components", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("ess_threshold", [0.0, 0.95, 1.0])
def test_the_estimate_is_unbiased_without_with_adaptive_and_with_constant_resampling(
    components, coefficient, ess_threshold
):
    particles, path = run(exact(components), coefficient=coefficient, ess_threshold=ess_threshold)
    assert_mean_close((particles.log_z - components.log_z).exp(), 1.0)
    share = path.resampled[1:].double().mean()
    assert share == ess_threshold if ess_threshold in (0, 1) else 0 < share < 1


@pytest.mark.parametrize("ess_threshold", [0.0, 0.9, 1.0])
def test_the_estimate_is_unbiased_with_a_potential_that_is_wrong_at_all_positive_times(ess_threshold):
    particles, _ = run(NaivePotential(MixtureDensity(MILD), PROCESS), ess_threshold=ess_threshold, num_steps=4)
    assert_mean_close((particles.log_z - MILD.log_z).exp(), 1.0)


@pytest.mark.parametrize("name", get_args(smc.Scheme))
@pytest.mark.parametrize("ess_threshold", [0.95, 1.0])
def test_the_estimate_is_unbiased_with_every_resampling_scheme(name, ess_threshold):
    scheme = smc.resampling_scheme(name)
    particles, path = run(exact(MIXTURE), ess_threshold=ess_threshold, scheme=scheme, num_steps=4)
    assert path.resampled.any()
    assert_mean_close((particles.log_z - MIXTURE.log_z).exp(), 1.0, num_stderr=4)


LADDERS = {
    "moves": {"moves": smc.Mala(), "step_sizes": torch.full((4,), 0.5)},
    "two moves of several steps": {"moves": smc.Hmc(3, 2), "step_sizes": torch.full((4,), 0.3)},
    "without waste": {"moves": smc.Mala(num_moves=3, waste_free=True), "step_sizes": torch.full((4,), 0.5)},
    "tempering without moves": {"exponents": torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64)},
    "tempering": {
        "moves": smc.Mala(),
        "exponents": torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64),
        "step_sizes": torch.full((6,), 0.5),
    },
    "annealing": {
        "times": torch.zeros(1, dtype=torch.float64),
        "exponents": torch.tensor([0.1, 0.4, 1.0], dtype=torch.float64),
        "moves": smc.Hmc(3),
        "step_sizes": torch.full((2,), 0.3),
    },
    "annealing without waste": {
        "times": torch.zeros(1, dtype=torch.float64),
        "exponents": torch.tensor([0.1, 0.4, 1.0], dtype=torch.float64),
        "moves": smc.Mala(num_moves=3, waste_free=True),
        "step_sizes": torch.full((2,), 0.4),
    },
}


@pytest.mark.parametrize("options", LADDERS.values(), ids=LADDERS)
@pytest.mark.parametrize("ess_threshold", [0.0, 0.9])
def test_the_estimate_is_unbiased_with_every_kind_of_ladder(options, ess_threshold):
    naive = NaivePotential(MixtureDensity(MILD), PROCESS)
    particles, path = run(naive, num_steps=4, ess_threshold=ess_threshold, **options)
    assert_mean_close((particles.log_z - MILD.log_z).exp(), 1.0)
    weights = (particles.log_weights + particles.log_z[:, None] - MILD.log_z).exp()[..., None]
    assert_mean_close((weights * particles.x).sum(1), MILD.weights @ MILD.means)
    assert path.acceptance[1:].isnan().all() == ("moves" not in options)


def test_moves_make_annealing_better_than_importance_sampling():
    naive = NaivePotential(MixtureDensity(MIXTURE), PROCESS)
    ladder = LADDERS["annealing"]
    still = {key: ladder[key] for key in ("times", "exponents")}
    deviations = [run(naive, n=64, **options)[0].log_z.std().item() for options in (still, ladder)]
    assert deviations[1] < 0.9 * deviations[0]


@pytest.mark.parametrize("outside", [-torch.inf, torch.nan])
def test_the_estimate_is_unbiased_with_moves_in_a_bounded_support(outside):
    law = torch.distributions.Normal(0.5, 0.6)
    target = CallableTarget(lambda x: torch.where(x[:, 0] > -0.5, law.log_prob(x[:, 0]), outside), 1)
    moves = {"moves": smc.Mala(), "step_sizes": torch.full((5,), 0.6)}
    particles, path = run(NaivePotential(target, PROCESS), d=1, n=50, **moves)
    assert_mean_close(particles.log_z.exp() / (1 - law.cdf(torch.tensor(-0.5))), 1.0)
    assert ((path.num_nan + path.num_nan_proposals).sum() > 0) == math.isnan(outside)


@pytest.mark.parametrize("potential", ["exact", "naive"])
def test_the_evidence_of_a_linear_regression_is_found(potential):
    target = linear_regression()
    g = exact(target.posterior()) if potential == "exact" else NaivePotential(target, PROCESS)
    particles, _ = run(g, d=3, replicates=500, n=40, num_steps=8)
    assert_mean_close((particles.log_z - target.log_normalizer).exp(), 1.0)


def test_weighted_particles_have_the_moments_of_the_target():
    particles, _ = run(exact(MIXTURE))
    # Ẑ-weighted sums over a run are unbiased for Z E[f]
    weights = (particles.log_weights + particles.log_z[:, None] - MIXTURE.log_z).exp()[..., None]
    mean = MIXTURE.weights @ MIXTURE.means
    second = (
        MIXTURE.weights[:, None, None] * (MIXTURE.covariances + MIXTURE.means[:, :, None] * MIXTURE.means[:, None])
    ).sum(0)
    assert_mean_close((weights * particles.x).sum(1), mean)
    assert_mean_close((weights[..., None] * particles.x[..., None] * particles.x[:, :, None]).sum(1), second)


@pytest.mark.parametrize("components", PROBLEMS.values(), ids=PROBLEMS)
def test_with_the_exact_potential_the_error_vanishes_as_steps_are_added(components):
    deviations = [
        run(exact(components), replicates=200, n=50, num_steps=k, ess_threshold=0.0)[0].log_z.std().item()
        for k in (4, 16, 64)
    ]
    # the sampling error of a standard deviation over 200 runs is 5 %; each fourfold refinement gains far more
    assert deviations[1] < 0.75 * deviations[0] and deviations[2] < 0.75 * deviations[1]
    assert deviations[2] < 0.4 * deviations[0]


@pytest.mark.parametrize("lower", [-1.0, -0.5, 0.2])
@pytest.mark.parametrize("ess_threshold", [0.0, 0.5])
def test_a_density_with_bounded_support_is_estimated_without_bias(lower, ess_threshold):
    law = torch.distributions.Normal(0.5, 0.6)
    target = CallableTarget(lambda x: torch.where(x[:, 0] > lower, law.log_prob(x[:, 0]), -torch.inf), 1)
    particles, _ = run(NaivePotential(target, PROCESS), d=1, n=50, num_steps=8, ess_threshold=ess_threshold)
    assert_mean_close(particles.log_z.exp() / (1 - law.cdf(torch.tensor(lower))), 1.0)
    inside = particles.log_weights > -torch.inf
    assert (particles.x[..., 0][inside] > lower).all()


def test_replicates_of_one_sweep_are_independent():
    particles, _ = run(exact(MIXTURE), replicates=6000, n=4, num_steps=4, ess_threshold=1.0)
    deviation = ((particles.log_z - MIXTURE.log_z).exp() - 1).reshape(3000, 2)
    assert_mean_close(deviation[:, 0] * deviation[:, 1], 0.0)
    # the mean of 100 replicates spreads a tenth as much as one
    assert_mean_close(deviation.reshape(60, 100).mean(1) ** 2, deviation.var().item() / 100)


def test_replicates_in_one_sweep_spread_as_much_as_runs_on_their_own():
    settings = {"n": 4, "num_steps": 3, "ess_threshold": 1.0}
    together = run(exact(MIXTURE), replicates=2000, **settings)[0].log_z
    alone = torch.cat([run(exact(MIXTURE), replicates=1, **settings, seed=1 + k)[0].log_z for k in range(150)])
    squares = [(log_z - MIXTURE.log_z).expm1() ** 2 for log_z in (together, alone)]
    stderr = math.hypot(*(float(square.std()) / len(square) ** 0.5 for square in squares))
    assert abs(squares[0].mean() - squares[1].mean()) < 5 * stderr


@pytest.mark.parametrize("num_steps", [4, 20])
def test_without_resampling_the_single_run_variance_is_that_of_importance_sampling(num_steps):
    n = 200
    particles, path = run(exact(GAUSSIAN), replicates=400, n=n, num_steps=num_steps, ess_threshold=0.0)
    estimated = relative_variance(particles.family_changes)
    assert torch.allclose(estimated, (1 / path.ess[-1] - 1 / n) * n / (n - 1), rtol=1e-6, atol=1e-12)
    # squared deviations of Ẑ and their estimates have one mean
    assert_mean_close((particles.log_z - GAUSSIAN.log_z).expm1() ** 2 - estimated, 0.0)


@pytest.mark.parametrize("ess_threshold", [0.9, 1.0])
def test_with_resampling_the_single_run_variance_is_that_of_the_estimate(ess_threshold):
    particles, path = run(exact(GAUSSIAN), replicates=400, n=200, num_steps=8, ess_threshold=ess_threshold)
    estimated = relative_variance(particles.family_changes)
    squared = (particles.log_z - GAUSSIAN.log_z).expm1() ** 2
    assert path.resampled.any()
    assert_mean_close(squared - estimated, 0.0)


def coverage(particles):
    """Whether the 95 % interval of each single run covers the truth."""
    stderr = relative_variance(particles.family_changes).sqrt()
    return ((particles.log_z - GAUSSIAN.log_z).abs() < 1.96 * stderr).double()


def test_without_resampling_error_bars_cover_the_truth_as_often_as_they_say():
    particles, path = run(exact(GAUSSIAN), replicates=1000, n=200, num_steps=8, ess_threshold=0.0)
    assert not path.resampled.any()
    # 95 % of a normal; log Ẑ is biased by −σ²/2, a small share of σ here
    assert_mean_close(coverage(particles), 0.95)


@pytest.mark.parametrize("ess_threshold", [0.9, 1.0])
def test_with_resampling_error_bars_cover_the_truth_as_often_as_they_say(ess_threshold):
    particles, path = run(exact(GAUSSIAN), replicates=1000, n=200, num_steps=8, ess_threshold=ess_threshold)
    assert path.resampled.any()
    assert abs(coverage(particles).mean() - 0.95) < 5 * (0.95 * 0.05 / 1000) ** 0.5


def test_the_linear_schedule_gives_the_same_constant():
    process = OrnsteinUhlenbeck(Linear(0.1, 3.0))
    kernel = smc.GuidedDenoising(process, MixturePotential(*MIXTURE[:3], process, MIXTURE.log_z))
    like = torch.empty(2000, 16, 2, dtype=torch.float64)
    particles, _ = smc.sample(kernel, like, uniform_times(5).flip(0))
    assert_mean_close((particles.log_z - MIXTURE.log_z).exp(), 1.0)
