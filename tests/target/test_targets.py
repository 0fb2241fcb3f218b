"""The contract that every target keeps, checked on one table of cases."""

import copy
import math

import pytest
import torch
from torch import Tensor

import sbflow.target
from sbflow.target import (
    CallableTarget,
    CountingTarget,
    Funnel,
    GaussianMixture,
    GaussianTarget,
    Ionosphere,
    LogisticRegression,
    Mixture2D,
    Sonar,
    Target,
)
from sbflow.target.dataset import data_root

COVARIANCE = [[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]]


def gaussian() -> GaussianTarget:
    return GaussianTarget([1.0, -2.0, 0.5], COVARIANCE)


def mixture() -> GaussianMixture:
    return GaussianMixture([[0.0, 1.0], [3.0, -1.0]], [[[1.0, 0.4], [0.4, 0.5]], [[0.3, 0.0], [0.0, 2.0]]], [0.3, 0.7])


def regression() -> LogisticRegression:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    return LogisticRegression(features, (torch.arange(12) % 3 == 0).double())


needs_data = pytest.mark.skipif(not (data_root() / "bayes").is_dir(), reason="no data sets: set SBFLOW_DATA")
CASES = [
    pytest.param(GaussianTarget, id="gaussian_1d"),
    pytest.param(gaussian, id="gaussian_3d"),
    pytest.param(mixture, id="mixture"),
    pytest.param(Mixture2D, id="mixture_2d"),
    pytest.param(Funnel, id="funnel"),
    pytest.param(lambda: Funnel(dim=2, std=1.0), id="funnel_2d"),
    pytest.param(regression, id="logistic_regression"),
    pytest.param(lambda: CallableTarget(lambda x: -x.cosh().log().sum(1), dim=3), id="callable"),
    pytest.param(lambda: CountingTarget(Mixture2D()), id="counting"),
    pytest.param(Sonar, id="sonar", marks=needs_data),
    pytest.param(Ionosphere, id="ionosphere", marks=needs_data),
]


def points(target: Target, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(7, target.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def test_every_exported_target_is_in_the_table() -> None:
    named = (getattr(sbflow.target, name) for name in sbflow.target.__all__)
    exported = {cls for cls in named if isinstance(cls, type)} - {Target}
    made = {GaussianTarget, GaussianMixture, Mixture2D, Funnel, LogisticRegression, CallableTarget, CountingTarget}
    assert exported == made | {Sonar, Ionosphere}


@pytest.mark.parametrize("make", CASES)
def test_score_is_the_gradient_of_log_prob(make) -> None:
    target = make().double()
    x = (2 * points(target)).requires_grad_()
    log_prob = target.log_prob(x)
    (gradient,) = torch.autograd.grad(log_prob.sum(), x)
    fused_log_prob, fused_score = target.log_prob_and_score(x.detach())
    torch.testing.assert_close(fused_log_prob, log_prob.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused_score, gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(target.score(x.detach()), fused_score, rtol=0, atol=0)


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("constants", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_shape_and_dtype_of_the_points(make, constants, dtype) -> None:
    target = make().to(constants)
    x = points(target, dtype)
    log_prob, score = target.log_prob_and_score(x)
    assert target.log_prob(x).shape == log_prob.shape == (7,)
    assert score.shape == x.shape
    assert target.log_prob(x).dtype == log_prob.dtype == score.dtype == dtype


@pytest.mark.parametrize("make", CASES)
def test_float32_agrees_with_float64_to_rounding(make) -> None:
    target = make().double()
    x = points(target)
    single = copy.deepcopy(target).float()
    exact, rounded = target.log_prob(x), single.log_prob(x.float()).double()
    torch.testing.assert_close(rounded, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", CASES)
def test_points_are_evaluated_independently_of_their_batch(make) -> None:
    target = make().double()
    x = points(target)
    alone = torch.cat([target.log_prob(row[None]) for row in x])
    torch.testing.assert_close(target.log_prob(x), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", CASES)
def test_constants_stay_out_of_checkpoints(make) -> None:
    assert make().state_dict() == {}


def statistics_of_funnel(x: Tensor) -> Tensor:
    rest = x[:, 1:] * (-0.5 * x[:, :1]).exp()
    return torch.cat([x[:, :1], x[:, :1].square(), rest, rest.square(), x[:, :1] * rest], dim=1)


def first_two_moments(x: Tensor) -> Tensor:
    return torch.cat([x, (x[:, :, None] * x[:, None]).flatten(1)], dim=1)


def moments_of_mixture(target: GaussianMixture) -> Tensor:
    w, m = target.weights, target.means
    second = target.covariances + m[:, :, None] * m[:, None]
    return torch.cat([w @ m, torch.einsum("k,kij->ij", w, second).flatten()])


@pytest.mark.parametrize("make", [GaussianTarget, gaussian, mixture, Mixture2D])
def test_exact_samples_of_a_mixture_have_its_moments(make) -> None:
    target = make().double()
    x = target.sample(40_000, generator=torch.Generator().manual_seed(1))
    assert_means(first_two_moments(x), moments_of_mixture(target))


def test_exact_samples_of_the_funnel_are_standard_normal_in_its_own_scales() -> None:
    target = Funnel().double()
    x = target.sample(40_000, generator=torch.Generator().manual_seed(2))
    expected = torch.tensor([0.0, 9.0] + [0.0] * 9 + [1.0] * 9 + [0.0] * 9, dtype=torch.float64)
    assert_means(statistics_of_funnel(x), expected)


def assert_means(values: Tensor, expected: Tensor) -> None:
    stderr = values.std(dim=0) / math.sqrt(len(values))
    assert ((values.mean(dim=0) - expected).abs() < 5 * stderr).all()


@pytest.mark.parametrize("make", [GaussianTarget, mixture, Mixture2D, lambda: CountingTarget(Funnel())])
def test_samples_follow_the_generator_and_the_dtype_of_the_target(make) -> None:
    target = make().double()
    first, again = (target.sample(5, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert first.shape == (5, target.dim) and first.dtype == torch.float64
    assert torch.equal(first, again)
    assert target.float().sample(5).dtype == torch.float32


@pytest.mark.parametrize("make", [regression, lambda: CallableTarget(lambda x: x.sum(1), dim=2)])
def test_a_target_without_exact_sampler_says_so(make) -> None:
    with pytest.raises(NotImplementedError, match="has no exact sampler"):
        make().sample(3)


def integral(target: Target, widths: list[tuple[float, float, int]]) -> float:
    """Trapezoidal integral of exp(log_prob) over a box."""
    axes = [torch.linspace(low, high, k, dtype=torch.float64) for low, high, k in widths]
    x = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], dim=1)
    cell = math.prod((high - low) / (k - 1) for low, high, k in widths)
    return target.log_prob(x).exp().sum().item() * cell


def test_gaussian_and_mixtures_integrate_to_one() -> None:
    assert integral(GaussianTarget().double(), [(0.5, 5.0, 1001)]) == pytest.approx(1, abs=1e-7)
    box = [(-9.0, 9.0, 601)] * 2
    assert integral(Mixture2D().double(), box) == pytest.approx(1, abs=1e-6)
    assert integral(mixture().double(), [(-8.0, 9.0, 401), (-12.0, 11.0, 401)]) == pytest.approx(1, abs=1e-6)


def test_funnel_integrates_to_one() -> None:
    funnel = Funnel(dim=2, std=1.0).double()

    # x₂ = sinh(s) resolves both the neck and the mouth
    def density(y: Tensor) -> Tensor:
        return funnel.log_prob(torch.stack([y[:, 0], y[:, 1].sinh()], dim=1)) + y[:, 1].cosh().log()

    box = [(-7.0, 7.0, 281), (-8.0, 8.0, 3201)]
    assert integral(CallableTarget(density, dim=2), box) == pytest.approx(1, abs=1e-7)


def test_log_normalizer_is_zero_for_normalised_targets() -> None:
    assert [t.log_normalizer for t in (GaussianTarget(), mixture(), Mixture2D(), Funnel())] == [0.0] * 4
