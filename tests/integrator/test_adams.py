import math

import pytest
import torch

from sbflow.integrator import euler_maruyama, simulate, simulate_adams, time_grid
from sbflow.process import GaussianBridge
from sbflow.tensor import seeded_generator

MEAN0, MEAN1 = torch.tensor([1.0, -0.5]).double(), torch.tensor([-1.0, 2.0]).double()
COV0 = torch.tensor([[1.0, 0.6], [0.6, 2.0]]).double()
COV1 = torch.tensor([[0.5, -0.2], [-0.2, 1.5]]).double()
BRIDGE = GaussianBridge(MEAN0, MEAN1, COV0, COV1, 1.0)
N = 200_000


def start(seed):
    noise = torch.randn(N, 2, dtype=torch.float64, generator=seeded_generator(seed))
    # exact moments, so that only the noise of the steps is left to chance
    noise = (noise - noise.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(noise.T.cov(correction=0))).T
    return MEAN0 + noise @ torch.linalg.cholesky(COV0).T


def one(t):
    return torch.ones_like(t)


def test_a_deterministic_path_is_right_to_second_order_on_an_uneven_grid():
    errors = []
    for num_steps in (20, 40, 80):
        times = time_grid("quadratic", num_steps).double()
        x = simulate_adams(lambda x, t: torch.cos(3 * t) * x, torch.zeros_like, torch.ones(1, 1).double(), times)
        errors.append(abs(float(x) - math.exp(math.sin(3) / 3)))
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5


def test_the_variance_of_noise_without_drift_is_that_of_the_time():
    times = time_grid("cosine", 7).double()
    x = simulate_adams(
        lambda x, t: torch.zeros_like(x),
        lambda t: 2 + t,
        torch.zeros(N, 1).double(),
        times,
        generator=seeded_generator(1),
    )
    expected = float(((2 + times[:-1]) ** 2 * times.diff()).sum())
    assert float(x.var()) == pytest.approx(expected, abs=4 * expected * (2 / N) ** 0.5)


def test_the_moments_are_those_of_the_recursion_of_a_linear_drift():
    """Second moments of (X, the drift before) by matrices, for X' = −2 X and unequal steps."""
    times = torch.tensor([0.0, 0.3, 0.5, 1.0]).double()
    moments, before = torch.diag(torch.tensor([1.0, 0.0]).double()), None
    for step in times.diff().tolist():
        rho = 0.0 if before is None else step / (2 * before)
        move = torch.tensor([[1 - 2 * step * (1 + rho), -step * rho], [-2.0, 0.0]]).double()
        moments, before = move @ moments @ move.T, step
        moments[0, 0] += step
    x0 = torch.randn(N, 1, dtype=torch.float64, generator=seeded_generator(2))
    x = simulate_adams(lambda x, t: -2 * x, one, x0 / x0.square().mean().sqrt(), times, generator=seeded_generator(3))
    assert float(x.square().mean()) == pytest.approx(
        float(moments[0, 0]), abs=4 * float(moments[0, 0]) * (2 / N) ** 0.5
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_a_correlated_bridge_is_met_with_fewer_steps_than_by_euler(reverse):
    bridge, x, target = BRIDGE, start(4), COV1
    if reverse:
        bridge, target = BRIDGE.reversed(), COV0
        x = MEAN1 + (x - MEAN0) @ torch.linalg.inv(torch.linalg.cholesky(COV0)).T @ torch.linalg.cholesky(COV1).T
    times = time_grid("uniform", 10).double()
    drift = lambda x, t: bridge.drift(x, float(t))  # noqa: E731
    made = simulate_adams(drift, one, x, times, generator=seeded_generator(5))
    euler = simulate(euler_maruyama(drift, one), x, times, generator=seeded_generator(5))
    errors = [float((made.T.cov() - target).norm() / target.norm()) for made in (made, euler)]
    # chance alone: about the square root of 2 d / n
    assert errors[0] < errors[1] / 2
    assert errors[0] < 0.02


def test_without_last_noise_the_last_step_is_eulers_and_a_path_holds_every_state():
    times = time_grid("uniform", 4)
    options = {"x": torch.zeros(5, 3), "times": times}
    drift = lambda x, t: 1 - x  # noqa: E731
    noisy = simulate_adams(drift, one, **options, return_path=True, generator=seeded_generator(6))
    quiet = simulate_adams(drift, one, **options, last_noise=False, return_path=True, generator=seeded_generator(6))
    assert noisy.shape == (5, 5, 3)
    assert torch.equal(noisy[:-1], quiet[:-1])
    torch.testing.assert_close(quiet[4], quiet[3] + 0.25 * (1 - quiet[3]))


def test_without_last_noise_a_bridge_to_one_point_ends_there():
    point = torch.tensor([2.0, -1.0])
    x = simulate_adams(
        lambda x, t: (point - x) / (1 - t), one, torch.randn(6, 2), time_grid("uniform", 5), last_noise=False
    )
    torch.testing.assert_close(x, point.expand(6, 2))


def test_each_sample_has_its_own_noise():
    generators = lambda: [seeded_generator(7, i) for i in range(4)]  # noqa: E731
    x, times = torch.randn(4, 2), time_grid("uniform", 5)
    whole = simulate_adams(lambda x, t: -x, one, x, times, generator=generators())
    part = simulate_adams(lambda x, t: -x, one, x[2:], times, generator=generators()[2:])
    assert torch.equal(whole[2:], part)
