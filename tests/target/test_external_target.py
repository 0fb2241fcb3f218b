import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from sbflow.target import CallableTarget, ExternalTarget, check_target
from sbflow.whitening import Laplace

MATRIX = np.array([[2.0, 0.4, 0.0], [0.4, 1.0, -0.2], [0.0, -0.2, 0.7]])


def value_and_gradient(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A quadratic and a quartic term, so that the curvature changes."""
    slope = x @ MATRIX
    return -0.5 * (slope * x).sum(1) - 0.1 * (x**4).sum(1), -slope - 0.4 * x**3


def hessian_product(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    return -v @ MATRIX - 1.2 * x**2 * v


def in_torch(x: Tensor) -> Tensor:
    matrix = torch.from_numpy(MATRIX).to(x)
    return -0.5 * ((x @ matrix) * x).sum(1) - 0.1 * (x**4).sum(1)


TARGETS = {
    "Hessian products given": ExternalTarget(value_and_gradient, 3, hessian_product=hessian_product),
    "by differences of the gradient": ExternalTarget(value_and_gradient, 3),
}


@pytest.mark.parametrize("name", TARGETS)
def test_value_and_both_derivatives_are_those_of_the_same_density_in_torch(name) -> None:
    target, expected = TARGETS[name], CallableTarget(in_torch, 3)
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(target.log_prob(x), expected.log_prob(x))
    torch.testing.assert_close(target.score(x), expected.score(x))
    hessians = [torch.func.jacrev(lambda point, t=t: t.score(point[None])[0])(x[0]) for t in (target, expected)]
    torch.testing.assert_close(*hessians, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", TARGETS)
def test_derivatives_pass_the_check_of_autograd(name) -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(TARGETS[name].log_prob, (x,))
    assert torch.autograd.gradcheck(TARGETS[name].score, (x,))
    assert torch.autograd.gradgradcheck(TARGETS[name].log_prob, (x,))


@pytest.mark.parametrize("name", TARGETS)
def test_the_laplace_approximation_is_that_of_the_same_density_in_torch(name) -> None:
    fitted, expected = (Laplace().fit(t) for t in (TARGETS[name], CallableTarget(in_torch, 3)))
    z = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(fitted(z), expected(z), rtol=1e-6, atol=1e-6)


def test_float32_points_are_evaluated_in_float64_and_come_back_in_float32() -> None:
    dtypes = []

    def recorded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dtypes.append(x.dtype)
        return value_and_gradient(x)

    log_prob, score = ExternalTarget(recorded, 3).log_prob_and_score(torch.randn(4, 3))
    assert log_prob.dtype == score.dtype == torch.float32
    assert dtypes == [np.float64]


def test_one_evaluation_gives_value_and_gradient() -> None:
    calls = []

    def counted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(x))
        return value_and_gradient(x)

    target = ExternalTarget(counted, 3)
    target.log_prob_and_score(torch.randn(4, 3))
    x = torch.randn(5, 3, requires_grad=True)
    target.log_prob(x).sum().backward()
    assert calls == [4, 5]


def test_a_copy_shares_the_function_and_a_check_passes() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    target = TARGETS["by differences of the gradient"]
    torch.testing.assert_close(copy.deepcopy(target).double().log_prob(x), target.log_prob(x), rtol=0, atol=0)
    check_target(target)


def test_third_derivatives_are_refused_and_not_silently_zero() -> None:
    target = TARGETS["Hessian products given"]
    x = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    (score,) = torch.autograd.grad(target.log_prob(x).sum(), x, create_graph=True)
    (product,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives"):
        product.sum().backward()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (x, x), r"must return values of shape \[4\] for points of shape \[4, 3\], got \[4, 3\]"),
        (lambda x: (x[:, 0], x[:, 0]), r"must return gradients of shape \[4, 3\] .*, got \[4\]"),
    ],
)
def test_results_of_the_wrong_shape_are_named(function, message) -> None:
    with pytest.raises(ValueError, match=message):
        ExternalTarget(function, 3).log_prob(torch.zeros(4, 3))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        ExternalTarget(value_and_gradient, 0)
