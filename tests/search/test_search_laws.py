"""What theory says of searches, and the settings that were measured to be good."""

import math

import numpy as np
import pytest
import torch
from assertions import assert_mean_close
from scipy import integrate, stats
from search_bridges import EPSILON, euler_law, first_coordinate, gaussian_roll, standardised, zeros

from sbflow.integrator import time_grid
from sbflow.process import Brownian, MixtureBridge
from sbflow.search import BestOfN, Paths, Roll, ZeroOrder
from sbflow.verifier import NegativeSquaredDistance


def mean_of_the_largest(count):
    density = lambda z: z * count * stats.norm.pdf(z) * stats.norm.cdf(z) ** (count - 1)  # noqa: E731
    return integrate.quad(density, -9, 9)[0]


@pytest.mark.parametrize(("count", "n"), [(2, 800), (8, 400), (64, 150)])
def test_the_best_of_n_gaussians_has_the_mean_of_their_largest(count, n):
    result = BestOfN(count, search_steps=6, baseline=False)(gaussian_roll(6), zeros(n, 2), first_coordinate)
    assert_mean_close(standardised(result.samples, 6), mean_of_the_largest(count), num_stderr=4)
    # what the verifier does not look at keeps its law
    mean, variance = euler_law(6)
    assert_mean_close(result.samples[:, 1], mean)
    assert_mean_close((result.samples[:, 1] - mean) ** 2, variance)


def test_the_winner_of_any_verifier_has_the_rank_n_over_n_plus_one():
    mean, variance = euler_law(5)

    def oddly(x_in, x_out):
        return (x_out - mean).square().sum(1).sqrt().log()

    result = BestOfN(8, search_steps=5, baseline=False)(gaussian_roll(5), zeros(600, 2), oddly)
    # the squared radius of two Gaussians is exponential
    rank = 1 - torch.exp(-(result.samples - mean).square().sum(1) / (2 * variance))
    assert_mean_close(rank, 8 / 9)
    assert abs(rank.mean() - 8 / 9) < 0.02


def two_modes(num_steps):
    """Bridge to a common mode and to a rare one far from it."""
    means = torch.tensor([[-1.0, 0.0], [2.0, 1.0]]).double()
    covariances = 0.05 * torch.eye(2).double().expand(2, 2, 2)
    bridge = MixtureBridge(torch.tensor([0.7, 0.3]).log(), means, covariances, EPSILON)
    roll = Roll(lambda x, t: bridge.drift(x, float(t)), Brownian(EPSILON), time_grid("uniform", num_steps))
    return roll, NegativeSquaredDistance(means[1])


def rare(x):
    return (x[:, 0] > 0.5).double()


def test_a_rare_mode_is_found_as_often_as_independent_draws_find_it():
    roll, verifier = two_modes(10)
    many = zeros(20_000, 2)
    p = rare(roll(many, torch.randn(10, *many.shape, dtype=torch.float64))).mean().item()
    assert 0.02 < p < 0.4
    for count, n in ((4, 500), (16, 200)):
        found = rare(BestOfN(count, search_steps=10, baseline=False)(roll, zeros(n, 2), verifier).samples)
        expected = 1 - (1 - p) ** count
        slope = count * (1 - p) ** (count - 1)
        stderr = math.hypot((expected * (1 - expected) / n) ** 0.5, slope * (p * (1 - p) / len(many)) ** 0.5)
        assert abs(found.mean() - expected) < 4 * stderr


def test_a_blind_search_over_paths_leaves_the_law_alone():
    random = torch.Generator().manual_seed(1)

    def blind(x_in, x_out):
        return torch.rand(len(x_out), generator=random)

    search = Paths(1, 2, 5, renoise=3, search_steps=20, baseline=False)
    x = search(gaussian_roll(20), zeros(150, 8), blind).samples.flatten()
    mean, variance = euler_law(20)
    # the discretised path is no exact mixture of bridges
    assert abs(x.mean() - mean) < 5 * (variance / len(x)) ** 0.5 + 0.01
    assert abs(x.var() - variance) < variance * (5 * (2 / len(x)) ** 0.5 + 0.03)


def test_paths_and_zero_order_climb_far_above_the_best_of_as_many_evaluations():
    roll, x = gaussian_roll(20), zeros(40, 16)
    paths = Paths(2, 4, 2, search_steps=20, baseline=False)
    climber = ZeroOrder(2, 30, radius=0.5, search_steps=20, baseline=False)
    for search, bar in ((paths, 3.0), (climber, 3.5)):
        z = standardised(search(roll, x, first_coordinate).samples, 20)
        equal = mean_of_the_largest(search.evaluations(20) // 20)
        assert z.mean() > bar and z.mean() > equal + 1
    assert paths.evaluations(20) <= 220


def test_a_coarse_search_gains_nearly_as_much_for_less_than_half():
    roll, verifier = two_modes(40)
    x = 0.3 * torch.randn(80, 2, dtype=torch.float64)
    full = BestOfN(8, search_steps=40)(roll, x, verifier)
    coarse = BestOfN(8, search_steps=10)(roll, x, verifier)
    assert coarse.drift_evaluations < 0.45 * full.drift_evaluations
    gains = [(one.score - one.baseline_score).mean() for one in (full, coarse)]
    assert gains[1] > 0.95 * gains[0] > 0


def test_the_replayed_path_of_a_coarse_search_keeps_what_was_chosen():
    for renoise in (0, 1):
        search = Paths(2, 4, 2, renoise=renoise, search_steps=10, baseline=False)
        result = search(gaussian_roll(40), zeros(40, 4), first_coordinate)
        chosen, final = result.scores.amax(1), result.score
        assert np.corrcoef(chosen, final)[0, 1] > 0.8
        assert (final - chosen).mean().abs() < 0.2
