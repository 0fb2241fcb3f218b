"""The online loop on Gaussians with exact linear drifts: what a perfect network would converge to."""

import pytest
import torch
from assertions import assert_mean_close
from problems import Scalars, euler_moments, online_loop, scalar_slope

from sbflow.integrator import euler_maruyama, simulate
from sbflow.metric.coupling import gaussian_bridge
from sbflow.process import Brownian, uniform_times

# variance of x1 (that of x0 is 1), ε, steps, last noise -> cross forward, cross backward, variance of x̂1, of x̂0
FIXED_POINTS = {
    (1.0, 1.0, 20, True): (0.6152, 0.6152, 1.011, 1.011),
    (1.0, 1.0, 20, False): (0.6244, 0.6244, 0.976, 0.976),
    (1.0, 1.0, 30, True): (0.6162, 0.6162, 1.0074, 1.0074),
    (1.0, 1.0, 30, False): (0.6222, 0.6222, 0.9838, 0.9838),
    (1.0, 1.0, 100, True): (0.6175, 0.6175, 1.0022, 1.0022),
    (1.0, 1.0, 100, False): (0.6192, 0.6192, 0.995, 0.995),
    (4.0, 1.0, 20, True): (1.534, 1.5836, 3.8593, 1.0441),
    (4.0, 1.0, 20, False): (1.579, 1.5675, 3.9771, 0.9764),
    (4.0, 1.0, 30, True): (1.5435, 1.5761, 3.9064, 1.029),
    (4.0, 1.0, 30, False): (1.573, 1.5653, 3.9843, 0.984),
    (4.0, 1.0, 100, True): (1.5562, 1.5658, 3.972, 1.0086),
    (4.0, 1.0, 100, False): (1.5649, 1.5626, 3.9951, 0.9951),
    (1.0, 0.25, 20, True): (0.8824, 0.8824, 1.0007, 1.0007),
    (1.0, 0.25, 20, False): (0.8856, 0.8856, 0.994, 0.994),
    (1.0, 0.25, 30, True): (0.8826, 0.8826, 1.0005, 1.0005),
    (1.0, 0.25, 30, False): (0.8846, 0.8846, 0.996, 0.996),
    (1.0, 0.25, 100, True): (0.8827, 0.8827, 1.0002, 1.0002),
    (1.0, 0.25, 100, False): (0.8833, 0.8833, 0.9988, 0.9988),
}


@pytest.mark.parametrize(("setting", "expected"), FIXED_POINTS.items(), ids=map(str, FIXED_POINTS))
def test_the_loop_converges_to_its_tabulated_fixed_point(setting, expected):
    variance1, epsilon, num_steps, last_noise = setting
    found = online_loop(1.0, variance1, epsilon, num_steps, last_noise, iterations=60)
    assert found == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("variance1", [1.0, 4.0])
def test_the_fixed_point_tends_to_the_schrodinger_bridge_as_steps_are_added(variance1):
    exact = gaussian_bridge(torch.eye(1), variance1 * torch.eye(1), 1.0).item()
    errors = []
    for num_steps in (50, 100, 200):
        found = online_loop(1.0, variance1, 1.0, num_steps, True, iterations=60)
        errors.append(max(abs(found.cross_forward - exact), abs(found.variance1 - variance1)))
    assert errors[2] < 0.02 * exact
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([2, 2], rel=0.1)


@pytest.mark.parametrize("variance1", [1.0, 4.0])
@pytest.mark.parametrize("num_steps", [20, 30, 100])
@pytest.mark.parametrize("last_noise", [True, False])
def test_regressing_on_the_generated_end_converges_to_another_law(variance1, num_steps, last_noise):
    right, wrong = (
        online_loop(1.0, variance1, 1.0, num_steps, last_noise, regress_on=end) for end in ("data", "generated")
    )
    exact = gaussian_bridge(torch.eye(1), variance1 * torch.eye(1), 1.0).item()
    # the right pairing is within a few percent of the bridge; the wrong one has lost the end marginals
    assert abs(right.cross_forward - exact) < 0.03 * exact and abs(right.variance1 - variance1) < 0.05 * variance1
    assert abs(wrong.variance1 - variance1) > 0.3 * variance1
    assert abs(wrong.cross_forward - exact) > 0.2 * exact


@pytest.mark.parametrize("last_noise", [True, False])
@pytest.mark.parametrize("start_variance", [1.0, 4.0])
def test_rollouts_have_the_moments_of_the_linear_recursion(last_noise, start_variance):
    # pairs of start variance 1, end variance 4 and covariance 0.5; 12 steps, ε = 0.8
    pairs, epsilon, num_steps, n = Scalars(1.0, 4.0, 0.5), 0.8, 12, 100_000
    process = Brownian(epsilon)
    kernel = euler_maruyama(lambda x, u: scalar_slope(pairs, epsilon, float(u)) * x, process.diffusion)
    x = start_variance**0.5 * torch.randn(n, 1, dtype=torch.float64)
    end = simulate(kernel, x, uniform_times(num_steps), last_noise=last_noise)
    variance, cross = euler_moments(start_variance, pairs, epsilon, num_steps, last_noise)
    assert_mean_close(end**2, variance)
    assert_mean_close(x * end, cross)
