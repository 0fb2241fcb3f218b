import math

import pytest
import torch

from sbflow.target import CallableTarget, Funnel, GaussianTarget, Mixture2D
from sbflow.whitening import Affine, Standard, Whitened

TRIL = torch.tensor([[1.5, 0.0], [-0.7, 2.0]], dtype=torch.float64)
CASES = [
    (Mixture2D(), Affine(torch.tensor([0.3, -0.2], dtype=torch.float64), TRIL)),
    (Mixture2D(), Standard(2.5).fit(Mixture2D())),
    (CallableTarget(lambda x: -x.cosh().log().sum(1), dim=2), Affine(torch.ones(2).double(), TRIL)),
]


def log_integral(target, half_width: float, n: int) -> float:
    axis = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * target.dim).reshape(-1, target.dim)
    return (target.log_prob(z).logsumexp(0) + target.dim * math.log(2 * half_width / (n - 1))).item()


def test_change_of_variables_keeps_log_z_on_the_line() -> None:
    whitened = Whitened(GaussianTarget(), Affine(torch.tensor([2.0]).double(), torch.tensor([0.4]).double()))
    assert log_integral(whitened, 8.0, 2001) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("target", "affine"), CASES[:2])
def test_change_of_variables_keeps_log_z_in_the_plane(target, affine) -> None:
    assert log_integral(Whitened(target, affine), 8.0, 801) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("target", "affine"), CASES)
def test_score_is_the_gradient_in_whitened_coordinates(target, affine) -> None:
    whitened = Whitened(target, affine)
    z = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    log_prob = whitened.log_prob(z)
    (gradient,) = torch.autograd.grad(log_prob.sum(), z)
    fused_log_prob, score = whitened.log_prob_and_score(z.detach())
    torch.testing.assert_close(fused_log_prob, log_prob.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-9)


def test_a_gaussian_whitened_by_its_own_law_is_standard_normal() -> None:
    target = GaussianTarget(torch.tensor([1.0, -1.0]).double(), TRIL @ TRIL.T)
    whitened = Whitened(target, Affine(target.mean, TRIL))
    z = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(whitened.log_prob(z), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whitened.score(z), -z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("target", "affine"), CASES[:2])
def test_samples_are_those_of_the_target_in_whitened_coordinates(target, affine) -> None:
    z = Whitened(target, affine).sample(5, generator=torch.Generator().manual_seed(1))
    x = target.sample(5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(affine(z), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_points(dtype) -> None:
    log_prob, score = Whitened(*CASES[0]).log_prob_and_score(torch.zeros(3, 2, dtype=dtype))
    assert log_prob.dtype == score.dtype == dtype


def test_dimension_and_reference_log_z_are_those_of_the_target() -> None:
    whitened = Whitened(Funnel(), Standard().fit(Funnel()))
    assert (whitened.dim, whitened.log_normalizer) == (10, 0.0)


def test_a_change_of_variables_of_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="affine must have the dimension of the target, 2, got 3"):
        Whitened(Mixture2D(), Standard().empty(3))
