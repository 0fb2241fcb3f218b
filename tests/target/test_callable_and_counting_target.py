import copy

import pytest
import torch
from torch import Tensor

from sbflow.target import CallableTarget, CountingTarget, Funnel, GaussianTarget, Mixture2D
from sbflow.whitening import Laplace


def parabola(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(1)


@pytest.mark.parametrize(
    ("function", "got"),
    [(lambda x: x, r"\[4, 2\]"), (lambda x: x.sum(), r"\[\]"), (lambda x: x.sum(1, keepdim=True), r"\[4, 1\]")],
)
def test_a_callable_of_wrong_shape_is_told_what_was_expected_and_got(function, got) -> None:
    message = rf"log_prob must return a tensor of shape \[4\] for points of shape \[4, 2\], got {got}"
    with pytest.raises(ValueError, match=message):
        CallableTarget(function, dim=2).log_prob(torch.zeros(4, 2))


def test_a_callable_that_returns_no_tensor_is_named() -> None:
    with pytest.raises(ValueError, match="got float"):
        CallableTarget(lambda x: 0.0, dim=2).log_prob(torch.zeros(4, 2))


def test_bad_arguments_of_a_callable_target_are_named() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        CallableTarget(parabola, dim=0)


def test_a_module_moves_with_the_target_that_wraps_it() -> None:
    class Shifted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return parabola(x - self.shift)

    module = Shifted()
    CallableTarget(module, dim=2).double()
    assert module.shift.dtype == torch.float64


def test_every_point_is_counted_once() -> None:
    target = CountingTarget(Mixture2D())
    target.log_prob(torch.zeros(5, 2))
    target.log_prob_and_score(torch.zeros(3, 2))
    target.score(torch.zeros(2, 2))
    assert (target.density_evaluations, target.gradient_evaluations) == (10, 5)
    target.reset()
    assert (target.density_evaluations, target.gradient_evaluations) == (0, 0)


def test_a_score_by_automatic_differentiation_is_counted_once() -> None:
    target = CountingTarget(CallableTarget(parabola, dim=2))
    target.score(torch.zeros(3, 2))
    assert (target.density_evaluations, target.gradient_evaluations) == (3, 3)


def test_counting_changes_nothing_else() -> None:
    inner = Funnel()
    target = CountingTarget(inner)
    x = inner.sample(6, generator=torch.Generator().manual_seed(0))
    assert (target.dim, target.log_normalizer) == (10, 0.0)
    assert torch.equal(target.log_prob(x), inner.log_prob(x))
    assert torch.equal(target.score(x), inner.score(x))
    assert torch.equal(target.sample(6, generator=torch.Generator().manual_seed(0)), x)
    assert target.density_evaluations == 12


def test_the_cost_of_fitting_on_a_copy_is_counted() -> None:
    target = CountingTarget(GaussianTarget())
    copy.deepcopy(target).log_prob(torch.zeros(4, 1))
    assert target.density_evaluations == 4
    Laplace().fit(target)
    assert target.gradient_evaluations > 0
