from itertools import pairwise

import pytest
import torch

from sbflow.integrator import euler_maruyama
from sbflow.process import Brownian, Constant, Cosine, Linear, OrnsteinUhlenbeck

PROCESSES = {
    "brownian": Brownian(0.7),
    "ou-cosine": OrnsteinUhlenbeck(Cosine()),
    "ou-linear": OrnsteinUhlenbeck(Linear(0.2, 3.0), sigma=1.6),
    "ou-constant": OrnsteinUhlenbeck(Constant(1.2), sigma=0.5),
}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
double = lambda value: torch.tensor(value, dtype=torch.float64)  # noqa: E731


@every_process
@pytest.mark.parametrize("times", [(0.0, 0.3, 0.9), (0.1, 0.5, 1.0), (0.0, 0.4, 1.0)])
def test_two_transitions_compose_to_one(process, times):
    r, s, t = map(double, times)
    (a1, b1), (a2, b2), (a, b) = process.transition(r, s), process.transition(s, t), process.transition(r, t)
    assert torch.allclose(a1 * a2, a, rtol=1e-10)
    assert torch.allclose((a2 * b1) ** 2 + b2**2, b**2, rtol=1e-10)


@every_process
def test_no_time_is_no_change(process):
    a, b = process.transition(double(0.4), double(0.4))
    assert a == 1 and b == 0


@every_process
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_a_short_transition_is_one_step_of_drift_and_diffusion(process, t):
    t, h, x = double(t), 1e-6, torch.randn(3, 2, dtype=torch.float64)
    law = process.kernel(x, t, t + h)
    assert torch.allclose((law.mean - x) / h, process.drift(x, t), atol=1e-3)
    assert torch.allclose(law.std**2 / h, process.diffusion(t) ** 2, rtol=1e-3)


@pytest.mark.parametrize("process", [p for p in PROCESSES.values() if isinstance(p, OrnsteinUhlenbeck)])
@pytest.mark.parametrize("times", [(0.0, 0.2), (0.3, 0.8), (0.0, 1.0)])
def test_ornstein_uhlenbeck_leaves_its_stationary_law_alone(process, times):
    a, b = process.transition(*map(double, times))
    assert (a * process.sigma) ** 2 + b**2 == pytest.approx(process.sigma**2, rel=1e-12)


@every_process
def test_the_bridge_starts_and_ends_at_its_ends(process):
    x0, x1 = torch.randn(2, 4, 3, dtype=torch.float64)
    for t, end in ((0.0, x0), (1.0, x1)):
        law = process.bridge(x0, x1, double(t))
        assert torch.allclose(law.mean, end, atol=1e-14) and law.std == 0


@every_process
@pytest.mark.parametrize("t", [0.2, 0.7])
def test_the_bridge_is_the_law_of_the_middle_given_both_ends(process, t):
    # Bayes: log p(x_t | x0, x1) and log p(x_t | x0) + log p(x1 | x_t) differ by a constant in x_t
    zero, one, t = double(0.0), double(1.0), double(t)
    x0, x1 = (torch.randn(1, 2, dtype=torch.float64).expand(50, 2) for _ in range(2))
    x = torch.randn(50, 2, dtype=torch.float64)
    bayes = process.kernel(x0, zero, t).log_prob(x) + process.kernel(x, t, one).log_prob(x1)
    constant = bayes - process.bridge(x0, x1, t).log_prob(x)
    assert torch.allclose(constant, constant[:1], rtol=1e-9, atol=1e-9)


def test_the_brownian_bridge_has_its_textbook_moments():
    epsilon, t = 0.7, torch.rand(6, dtype=torch.float64)
    x0, x1 = torch.randn(2, 6, 1, 4, 4, dtype=torch.float64)
    w = t.reshape(-1, 1, 1, 1)
    law = Brownian(epsilon).bridge(x0, x1, t)
    assert torch.allclose(law.mean, (1 - w) * x0 + w * x1)
    assert torch.allclose(law.std**2, epsilon * t * (1 - t))


@pytest.mark.parametrize("u", [1e-3, 0.5, 1 - 1e-3])
def test_the_brownian_bridge_drift_is_the_remaining_way_over_the_remaining_time(u):
    x, end = torch.randn(2, 4, 3, dtype=torch.float64)
    assert torch.allclose(Brownian(0.3).drift_to_end(x, end, double(u)), (end - x) / (1 - u))
    assert torch.allclose(Brownian(0.3).drift_to_start(x, end, double(u)), (x - end) / u)


@every_process
@pytest.mark.parametrize("t", [0.2, 0.7])
def test_the_drifts_of_the_bridge_are_gradients_of_transition_densities(process, t):
    zero, one, t = double(0.0), double(1.0), double(t)
    start, end = torch.randn(2, 4, 3, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    g2, f = process.diffusion(t) ** 2, process.drift(x, t)
    (to_end,) = torch.autograd.grad(process.kernel(x, t, one).log_prob(end).sum(), x)
    (from_start,) = torch.autograd.grad(process.kernel(start, zero, t).log_prob(x).sum(), x)
    assert torch.allclose(process.drift_to_end(x, end, t), f + g2 * to_end, rtol=1e-9)
    assert torch.allclose(process.drift_to_start(x, start, t), f - g2 * from_start, rtol=1e-9)


def euler_law(kernel, start, times):
    """Mean and variance after Euler–Maruyama steps of a drift that is affine in x: exact, without draws."""
    mean, variance = start, torch.zeros((), dtype=torch.float64)
    for t, s in pairwise(times):
        law = kernel(mean, t, s)
        slope = (kernel(mean + 1, t, s).mean - law.mean).mean()
        mean, variance = law.mean, slope**2 * variance + law.std**2
    return mean, variance


@pytest.mark.parametrize("process", [PROCESSES[key] for key in ("brownian", "ou-linear", "ou-constant")])
@pytest.mark.parametrize("towards", ["end", "start"])
def test_following_the_drift_of_the_bridge_gives_the_law_of_the_bridge(process, towards):
    x0, x1 = torch.randn(2, 1, 3, dtype=torch.float64)
    begin, pinned, stop = (x0, x1, 0.7) if towards == "end" else (x1, x0, 0.3)
    pull = process.drift_to_end if towards == "end" else process.drift_to_start
    kernel = euler_maruyama(lambda x, t: pull(x, pinned.expand_as(x), t), process.diffusion)
    first = 0.0 if towards == "end" else 1.0
    exact = process.bridge(x0, x1, double(stop))
    errors = []
    for num_steps in (100, 200, 400):
        mean, variance = euler_law(kernel, begin, torch.linspace(first, stop, num_steps + 1, dtype=torch.float64))
        errors.append(torch.cat([(mean - exact.mean).abs().flatten(), (variance - exact.std**2).abs()[None]]))
    coarse, middle, fine = errors
    # order one: the error halves with the step; where it is zero at once (the Brownian mean) it stays so
    floor = 1e-11
    assert (fine < 0.55 * middle + floor).all() and (middle < 0.55 * coarse + floor).all()
    assert (fine < 0.02).all()


def test_the_brownian_epsilon_must_be_positive():
    for epsilon in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="epsilon must be positive and finite"):
            Brownian(epsilon)
