"""What step kernels and bridges keep, whatever schedule, times and scale."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import between, increasing_times, schedules, seeds, thrifty

from sbflow.integrator import euler_maruyama, guided_denoising, simulate
from sbflow.process import Brownian, OrnsteinUhlenbeck

processes = st.one_of(st.builds(Brownian, between(0.01, 20)), st.builds(OrnsteinUhlenbeck, schedules))


def points(seed, scale=1.0):
    return scale * torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@thrifty
@given(processes, increasing_times, seeds)
def test_transitions_along_a_grid_compose_to_the_transition_over_it(process, times, seed):
    gain, variance = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for a, b in zip(*process.transition(times[:-1], times[1:]), strict=True):
        gain, variance = a * gain, a**2 * variance + b**2
    a, b = process.transition(times[0], times[-1])
    assert torch.allclose(gain, a, rtol=1e-8) and torch.allclose(variance, b**2, rtol=1e-8)


@thrifty
@given(processes, between(0.01, 0.99), seeds, between(0.01, 100))
def test_a_bridge_lies_between_its_ends_and_is_narrower_than_the_process(process, t, seed, scale):
    x0, x1, t = points(seed, scale), points(seed + 1, scale), torch.tensor(t, dtype=torch.float64)
    law = process.bridge(x0, x1, t)
    assert law.std <= process.transition(torch.zeros_like(t), t)[1] * (1 + 1e-9)
    # conditioning is linear: the same weights for any pair of ends
    both = process.bridge(2 * x0, 2 * x1, t).mean
    assert torch.allclose(both, 2 * law.mean, rtol=1e-9)


@thrifty
@given(between(0.01, 20), increasing_times, seeds)
def test_without_drift_euler_maruyama_is_the_brownian_transition(epsilon, times, seed):
    process, x = Brownian(epsilon), points(seed)
    law = euler_maruyama(process.drift, process.diffusion)(x, times[0], times[-1])
    exact = process.kernel(x, times[0], times[-1])
    assert torch.equal(law.mean, exact.mean) and torch.allclose(law.std, exact.std, rtol=1e-12)


@thrifty
@given(increasing_times, seeds, between(-5, 5))
def test_a_rollout_follows_a_constant_drift_exactly_on_any_grid(times, seed, speed):
    x = points(seed)
    kernel = euler_maruyama(lambda x, t: torch.full_like(x, speed), torch.zeros_like)
    assert torch.allclose(simulate(kernel, x, times), x + speed, atol=1e-12)


@thrifty
@given(schedules, increasing_times, seeds, st.sampled_from(["lambda", "exponential", "tweedie"]))
def test_a_constant_potential_is_denoised_by_the_reference_itself(schedule, times, seed, coefficient):
    process, x = OrnsteinUhlenbeck(schedule), points(seed)
    law = guided_denoising(process, lambda x, t: torch.zeros_like(x), coefficient)(x, times[1], times[0])
    exact = process.kernel(x, times[0], times[1])
    assert torch.equal(law.mean, exact.mean) and torch.equal(law.std, exact.std)
