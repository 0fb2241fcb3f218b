import pytest
import torch
from problems import GAUSSIAN

from sbflow.integrator import euler_maruyama, guided_denoising
from sbflow.integrator.kernel import guidance_coefficient
from sbflow.potential import MixturePotential
from sbflow.process import Cosine, OrnsteinUhlenbeck

COEFFICIENTS = ("lambda", "exponential", "tweedie")
double = lambda value: torch.tensor(value, dtype=torch.float64)  # noqa: E731


@pytest.mark.parametrize(("t", "s"), [(0.2, 0.5), (0.5, 0.2)])
def test_an_euler_step_follows_the_drift_in_the_direction_of_the_step(t, s):
    x = torch.randn(5, 2, dtype=torch.float64)
    law = euler_maruyama(lambda x, t: -3 * t * x, lambda t: 2 + t)(x, double(t), double(s))
    assert torch.allclose(law.mean, x - (s - t) * 3 * t * x, rtol=1e-14)
    assert law.std.item() == pytest.approx((2 + t) * 0.3**0.5, rel=1e-14)


def test_steps_keep_the_precision_of_the_samples_whatever_that_of_the_times():
    x, process = torch.randn(5, 2), OrnsteinUhlenbeck()
    for kernel in (
        euler_maruyama(lambda x, t: -x, torch.ones_like),
        guided_denoising(process, lambda x, t: -x, "tweedie"),
    ):
        assert kernel(x, double(0.5), double(0.4)).sample().dtype == torch.float32


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_guidance_coefficients_agree_to_first_order(coefficient):
    levels = double([1e-2, 1e-3, 1e-4])
    ratio = guidance_coefficient((1 - levels).sqrt(), levels.sqrt(), coefficient) / levels
    assert ((ratio - 1).abs() <= levels).all()


def test_guidance_coefficients_differ_to_second_order():
    a, b = double(0.5**0.5), double(0.5**0.5)
    values = [guidance_coefficient(a, b, coefficient).item() for coefficient in COEFFICIENTS]
    assert values == pytest.approx([0.5, 2 - 2**0.5, 0.5**0.5])


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_coefficient_is_refused():
    with pytest.raises(ValueError, match="coefficient must be 'lambda', 'exponential' or 'tweedie', got 'x'"):
        guidance_coefficient(double(0.5), double(0.5), "x")


@pytest.mark.parametrize(("t", "s"), [(0.3, 0.29), (0.9, 0.2), (1.0, 0.0)])
def test_the_tweedie_step_has_the_mean_of_the_exact_reversal(t, s):
    process, t, s = OrnsteinUhlenbeck(Cosine(floor=1e-3)), double(t), double(s)
    mean, cov = GAUSSIAN.means[0], GAUSSIAN.covariances[0]
    potential = MixturePotential(*GAUSSIAN[:3], process, GAUSSIAN.log_z)
    kernel = guided_denoising(process, lambda x, t: potential.log_g_and_grad(x, t)[1], "tweedie")
    x = torch.randn(7, 2, dtype=torch.float64)
    # the pair (X_s, X_t) of the noised target is Gaussian: regress the first on the second
    keep_s, keep_t = process.schedule.alpha_bar(s), process.schedule.alpha_bar(t)
    cov_s, cov_t = (keep * cov + (1 - keep) * torch.eye(2, dtype=torch.float64) for keep in (keep_s, keep_t))
    a = (keep_t / keep_s).sqrt()
    exact = keep_s.sqrt() * mean + (x - keep_t.sqrt() * mean) @ torch.linalg.solve(cov_t, a * cov_s)
    law = kernel(x, t, s)
    assert torch.allclose(law.mean, exact, rtol=1e-9, atol=1e-9)
    assert law.std**2 == pytest.approx((1 - a**2).item(), rel=1e-12)


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_a_small_guided_step_has_the_drift_of_the_time_reversal(coefficient):
    # reversed drift of dX = −β X dt + √(2β) dW with score ∇ log g − x: β x + 2 β (∇ log g − x)
    process, t, h = OrnsteinUhlenbeck(), double(0.4), 1e-6
    x, grad = torch.randn(2, 5, 3, dtype=torch.float64)
    law = guided_denoising(process, lambda x, t: grad, coefficient)(x, t, t - h)
    beta = process.schedule.beta(t)
    assert torch.allclose((law.mean - x) / h, beta * x + 2 * beta * (grad - x), atol=1e-4)
    assert law.std**2 / h == pytest.approx(2 * beta.item(), rel=1e-4)
