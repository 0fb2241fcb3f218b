import pytest
import torch
from torch import Tensor

from sbflow.target import (
    CallableTarget,
    CountingTarget,
    GaussianMixture,
    GaussianTarget,
    Ionosphere,
    Mixture2D,
    Sonar,
    Target,
)
from sbflow.target.dataset import data_root
from sbflow.whitening import Laplace, MeanField, Standard


def correlated(d: int = 8) -> GaussianTarget:
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return GaussianTarget(4 * a[0], a @ a.T + 0.01 * torch.eye(d, dtype=torch.float64))


def lopsided() -> GaussianMixture:
    return GaussianMixture([[1.0, 0.5], [3.0, -1.0]], [[[1.0, 0.3], [0.3, 0.8]], [[0.5, 0.0], [0.0, 0.5]]], [0.8, 0.2])


def by_autograd(target: GaussianTarget) -> CallableTarget:
    return CallableTarget(target.log_prob, target.dim)


@pytest.mark.parametrize("wrap", [lambda target: target, by_autograd], ids=["closed score", "autograd"])
def test_a_correlated_gaussian_is_recovered(wrap) -> None:
    target = correlated()
    affine = Laplace().fit(wrap(target))
    torch.testing.assert_close(affine.loc, target.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(affine.scale @ affine.scale.T, target.covariance, rtol=1e-8, atol=1e-8)


def test_inflation_multiplies_the_standard_deviations() -> None:
    plain, wide = Laplace().fit(correlated()), Laplace(inflation=1.5).fit(correlated())
    torch.testing.assert_close(wide.scale, 1.5 * plain.scale)
    torch.testing.assert_close(wide.loc, plain.loc)


def test_mode_and_curvature_of_a_skewed_density_are_the_closed_ones() -> None:
    # log-gamma law: log γ(x) = a x − b eˣ, mode log(a / b), curvature a
    a, b = torch.tensor([3.0, 40.0]).double(), torch.tensor([0.01, 2.0]).double()
    affine = Laplace().fit(CallableTarget(lambda x: (a * x - b * x.exp()).sum(1), dim=2))
    torch.testing.assert_close(affine.loc, (a / b).log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(affine.scale, torch.diag(a.rsqrt()), rtol=1e-9, atol=1e-9)


def test_newton_finishes_what_few_lbfgs_steps_leave() -> None:
    target = correlated()
    torch.testing.assert_close(Laplace(num_steps=1).fit(target).loc, target.mean, rtol=1e-8, atol=1e-8)


def test_a_mode_of_a_mixture_has_no_gradient() -> None:
    target = lopsided().double()
    affine = Laplace().fit(target)
    assert target.score(affine.loc[None]).norm() < 1e-7


@pytest.mark.skipif(not (data_root() / "bayes").is_dir(), reason="no data sets: set SBFLOW_DATA")
@pytest.mark.parametrize("make", [Sonar, Ionosphere])
def test_logistic_regression_has_no_gradient_at_the_mode_and_unit_curvature(make) -> None:
    target = make().double()
    affine = Laplace().fit(target)
    assert target.score(affine.loc[None]).norm() < 1e-9

    def log_prob(z: Tensor) -> Tensor:
        return target.log_prob(affine(z[None]))[0]

    hessian = torch.func.jacrev(torch.func.grad(log_prob))(torch.zeros(target.dim).double())
    torch.testing.assert_close(hessian, -torch.eye(target.dim).double(), rtol=1e-9, atol=1e-9)


def test_fitting_is_in_float64_and_leaves_a_float32_target_alone() -> None:
    target = lopsided()
    affine = Laplace().fit(target)
    assert affine.loc.dtype == affine.scale.dtype == torch.float64
    assert {buffer.dtype for buffer in target.buffers()} == {torch.float32}


@pytest.mark.parametrize(
    ("log_prob", "d"),
    [
        (lambda x: x.sum(1), 2),
        (lambda x: -x.pow(4).sum(1), 1),
        (lambda x: -x[:, 0].square(), 2),
        (lambda x: x[:, 0].square() - x[:, 1].square(), 2),
    ],
    ids=["linear", "quartic", "flat direction", "saddle"],
)
def test_a_density_without_proper_maximum_is_refused_in_one_line(log_prob, d) -> None:
    with pytest.raises(ValueError, match=r"laplace whitening needs a proper maximum.*use whitening=standard") as caught:
        Laplace().fit(CallableTarget(log_prob, d))
    assert "\n" not in str(caught.value)


def test_a_mode_without_second_derivative_is_refused() -> None:
    with pytest.raises(ValueError, match="second derivative of log_prob that is not finite: use whitening=standard"):
        Laplace().fit(CallableTarget(lambda x: -x.abs().pow(1.5).sum(1), 2))


def test_a_start_between_two_equal_modes_is_refused() -> None:
    target = GaussianMixture([[-1.0], [1.0]], [[[0.5]], [[0.5]]], [0.5, 0.5])
    with pytest.raises(ValueError, match="smallest eigenvalue of -Hessian of log_prob is -2, not positive"):
        Laplace().fit(target)


def test_a_spike_at_a_vanishing_scale_is_refused() -> None:
    # x₂ | x₁ ~ N(0, e^{x₁}): the mode is at x₁ = −½ · 14², where x₂ has the width e^{-49}
    def log_prob(x: Tensor) -> Tensor:
        return -0.5 * (x[:, 0] / 14).square() - 0.5 * x[:, 1].square() * (-x[:, 0]).exp() - 0.5 * x[:, 0]

    with pytest.raises(ValueError, match=r"found a spike of width 5.24e-22, not the bulk .*use whitening=standard"):
        Laplace().fit(CallableTarget(log_prob, 2))


def test_a_search_that_is_cut_short_says_so() -> None:
    # almost linear between the start and the mode, so that the few steps allowed do not cover the way
    def log_prob(x: Tensor) -> Tensor:
        return -(1 + (x[:, 0] - 1e6).square()).sqrt()

    with pytest.raises(ValueError, match="found no maximum in num_steps=1: raise it or use whitening=standard"):
        Laplace(num_steps=1).fit(CallableTarget(log_prob, 1))
    assert Laplace().fit(CallableTarget(log_prob, 1)).loc.item() == pytest.approx(1e6, abs=1e-3)


@pytest.mark.parametrize("log_prob", [lambda x: x.log().sum(1) - x.sum(1), lambda x: (x / x).sum(1)])
def test_a_density_that_is_not_finite_at_the_start_is_refused(log_prob) -> None:
    with pytest.raises(ValueError, match=r"starts at x = 0, where log_prob is (-inf|nan).*use whitening=standard"):
        Laplace().fit(CallableTarget(log_prob, 2))


class Single(Target):
    """A density whose constants are no buffers and stay in float32."""

    dim = 2
    matrix = torch.eye(2)

    def log_prob(self, x: Tensor) -> Tensor:
        return -(x @ self.matrix).square().sum(1)


@pytest.mark.parametrize("make", [Laplace, MeanField])
def test_a_density_that_takes_float32_only_is_told_so(make) -> None:
    with pytest.raises(ValueError, match="needs log_prob to take float64 points, use whitening=standard"):
        make().fit(Single())


class Foreign(Target):
    """A Gaussian whose score another library computes, so that it has no graph, and which cannot be copied."""

    def __init__(self, precision: Tensor) -> None:
        super().__init__()
        self.dim = len(precision)
        self.precision = precision

    def __deepcopy__(self, memo: dict) -> "Foreign":
        raise TypeError("cannot pickle a handle")

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x.detach() - 2
        return -0.5 * ((centred @ self.precision) * centred).sum(1), -centred @ self.precision

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_prob_and_score(x)[0]


def test_a_score_without_derivative_is_differenced() -> None:
    covariance = correlated(4).covariance
    affine = Laplace().fit(Foreign(torch.linalg.inv(covariance)))
    torch.testing.assert_close(affine.loc, torch.full((4,), 2.0).double(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(affine.scale @ affine.scale.T, covariance, rtol=1e-6, atol=1e-6)


def test_the_curvature_counts_one_gradient_for_each_of_its_rows() -> None:
    target = CountingTarget(correlated(8))
    Laplace(num_steps=1).fit(target)
    assert target.gradient_evaluations >= 2 * 8


def test_standard_is_isotropic_about_the_origin() -> None:
    affine = Standard(2.5).fit(Mixture2D())
    assert torch.equal(affine.loc, torch.zeros(2).double())
    assert torch.equal(affine.scale, torch.full((2,), 2.5).double())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Laplace(num_steps=0), "num_steps must be at least 1, got 0"),
        (lambda: Laplace(inflation=0.0), "inflation must be positive and finite, got 0"),
        (lambda: Standard(-1.0), "std must be positive and finite, got -1"),
    ],
)
def test_bad_arguments_are_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
