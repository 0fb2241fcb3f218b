"""The moments that simulations are compared with, against an independent derivation."""

import pytest
import torch
from problems import asymmetric_coupling, online_loop, path_moments, projected_drift, scalar_coupling, simulated_cross

from sbflow.selfcheck.gaussian_pairs import GaussianPairs, fixed_point

EPSILON = 0.6


@pytest.fixture
def coupling():
    return asymmetric_coupling()


@pytest.fixture
def pairs(coupling):
    return GaussianPairs(*coupling)


def test_the_drift_is_the_markovian_projection_of_the_pairs(coupling, pairs):
    x, u = torch.randn(50, 2, dtype=torch.float64), torch.linspace(0, 1, 50, dtype=torch.float64)
    assert torch.allclose(pairs.drift(EPSILON, x, u), projected_drift(coupling, EPSILON, x, u), atol=1e-10)


def test_many_steps_give_the_marginals_of_the_pairs_and_one_projection_of_their_covariance(coupling, pairs):
    end = pairs.euler(EPSILON, 800, pairs.mean0, pairs.cov0)
    mean, covariance = path_moments(coupling, EPSILON, torch.ones(1, dtype=torch.float64))
    assert torch.allclose(end.mean, mean[0], atol=1e-9)
    assert torch.allclose(end.covariance, covariance[0], atol=1e-2)
    assert torch.allclose(end.cross, simulated_cross(coupling, EPSILON, 800), atol=1e-9)


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_the_iteration_is_that_of_the_scalar_loop(iterations):
    data = GaussianPairs(*scalar_coupling(1.0, 4.0, 0.0))
    forward, backward = fixed_point(data, 1.0, 20, iterations)
    found = [forward.cross, backward.cross, forward.covariance, backward.covariance]
    assert [part.item() for part in found] == pytest.approx(online_loop(1.0, 4.0, 1.0, 20, True, iterations=iterations))
