import copy
import math

import pytest
import torch
from torch import Tensor

from sbflow.target import CallableTarget, CountingTarget, Funnel, GaussianMixture, GaussianTarget, Target
from sbflow.whitening import FullRank, Isotropic, Laplace, LowRank, MeanField
from sbflow.whitening.variational import balanced_draws

EVERY = [Isotropic, MeanField, LowRank, FullRank]
every_family = pytest.mark.parametrize("make", EVERY, ids=lambda make: make.__name__)


def correlated(d: int = 6) -> GaussianTarget:
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return GaussianTarget(4 * a[0], a @ a.T + 0.05 * torch.eye(d, dtype=torch.float64))


def log_gamma_laws() -> CallableTarget:
    # log γ(x) = a x − b eˣ: the logarithm of a gamma variable, skewed; the last row alone has a light tail to one side
    a, b = torch.tensor([3.0, 40.0, 0.8]).double(), torch.tensor([0.01, 2.0, 1.0]).double()
    return CallableTarget(lambda x: (a * x - b * x.exp()).sum(1), dim=3)


@pytest.mark.parametrize(("num", "dim"), [(256, 5), (256, 128), (257, 100)])
def test_draws_have_exactly_the_moments_of_the_standard_normal(num, dim) -> None:
    draws = balanced_draws(num, dim, seed=0)
    assert draws.shape == (2 * ((num + 1) // 2), dim)
    torch.testing.assert_close(draws.mean(0), torch.zeros(dim).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(draws.T @ draws / len(draws), torch.eye(dim).double(), rtol=0, atol=1e-12)


def test_few_draws_have_at_least_the_right_variances() -> None:
    draws = balanced_draws(10, 30, seed=0)
    torch.testing.assert_close(draws.square().mean(0), torch.ones(30).double())


def test_draws_are_a_function_of_their_seed() -> None:
    assert torch.equal(balanced_draws(64, 3, 1), balanced_draws(64, 3, 1))
    assert not torch.allclose(balanced_draws(64, 3, 1), balanced_draws(64, 3, 2))


def test_full_rank_recovers_a_correlated_gaussian() -> None:
    target = correlated()
    affine = FullRank().fit(target)
    torch.testing.assert_close(affine.loc, target.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(affine.scale @ affine.scale.T, target.covariance, rtol=1e-6, atol=1e-6)


def test_low_rank_keeps_the_covariance_that_laplace_has_found() -> None:
    target = correlated()
    affine = LowRank(2).fit(target)
    torch.testing.assert_close(affine.loc, target.mean, rtol=1e-6, atol=1e-6)
    # its random start dies out only to first order
    torch.testing.assert_close(affine.scale @ affine.scale.T, target.covariance, rtol=1e-2, atol=1e-2)


def test_low_rank_finds_one_direction_where_laplace_finds_none() -> None:
    # |x| has no curvature at 0, so that the fit starts from N(0, I): a long direction must come from U
    direction = torch.tensor([1.0, -2.0, 2.0, 0.0]).double() / 3

    def log_prob(x: Tensor) -> Tensor:
        along = x @ direction
        across = (x - along[:, None] * direction).abs().sum(1)
        return -across - along.abs() / 20

    target = CallableTarget(log_prob, 4)
    with pytest.raises(ValueError, match="laplace whitening"):
        Laplace().fit(target)
    affine = LowRank(1).fit(target)
    covariance = affine.scale @ affine.scale.T
    values, vectors = torch.linalg.eigh(covariance)
    assert values[3] > 100 * values[2]
    assert (vectors[:, 3] @ direction).abs() > 0.999


def test_mean_field_has_the_conditional_variances_of_a_gaussian() -> None:
    target = correlated()
    affine = MeanField().fit(target)
    precision = torch.linalg.inv(target.covariance)
    torch.testing.assert_close(affine.loc, target.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(affine.scale, precision.diagonal().rsqrt(), rtol=1e-6, atol=1e-6)


def test_isotropic_has_the_average_precision_of_a_gaussian() -> None:
    target = correlated()
    affine = Isotropic().fit(target)
    precision = torch.linalg.inv(target.covariance).diagonal().mean()
    torch.testing.assert_close(affine.loc, target.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(affine.scale, precision.rsqrt().expand(6), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [MeanField, FullRank])
def test_a_skewed_density_has_the_closed_reverse_divergence_fit(make) -> None:
    # E[a x − b eˣ] + log s is a m − b exp(m + s²/2) + log s: s² = 1/a and m = log(a / b) − s²/2
    affine = make(num_samples=4096).fit(log_gamma_laws())
    a, b = torch.tensor([3.0, 40.0, 0.8]).double(), torch.tensor([0.01, 2.0, 1.0]).double()
    covariance = affine.scale @ affine.scale.T if affine.scale.ndim == 2 else affine.scale.square().diag()
    torch.testing.assert_close(covariance, (1 / a).diag(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(affine.loc, (a / b).log() - 0.5 / a, rtol=0.01, atol=0.01)


def test_the_funnel_is_fitted_although_its_mode_misleads() -> None:
    # closed form: x₁ ~ N(0, (1/9 + 9/2)⁻¹), the others of variance exp(−Var(x₁)/2)
    variance = 1 / (1 / 9 + 9 / 2)
    affine = MeanField(num_samples=4096).fit(Funnel())
    assert affine.loc.abs().max() < 0.02
    assert affine.scale[0].item() == pytest.approx(math.sqrt(variance), rel=0.02)
    torch.testing.assert_close(affine.scale[1:], torch.full((9,), math.exp(-variance / 4)).double(), rtol=0.02, atol=0)


def bound(target: Target, affine) -> float:
    z = torch.randn(20_000, target.dim, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return (target.log_prob(affine(z)).mean() + affine.log_det).item()


def test_a_larger_family_has_a_higher_bound() -> None:
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(40, 5, generator=generator).double(), torch.arange(40) % 3 == 0
    features[:, 1] += 2 * features[:, 0]

    def log_prob(x: Tensor) -> Tensor:
        logits = x @ features.T
        likelihood = torch.where(labels, logits, -logits)
        return torch.nn.functional.logsigmoid(likelihood).sum(1) - x.square().sum(1) / 50

    target = CallableTarget(log_prob, 5)
    bounds = [bound(target, make().fit(target)) for make in (Isotropic, MeanField, Laplace, FullRank)]
    assert bounds[0] < bounds[1] < bounds[3] and bounds[2] < bounds[3]


@every_family
def test_inflation_multiplies_the_standard_deviations(make) -> None:
    plain, wide = make().fit(correlated()), make(inflation=1.5).fit(correlated())
    torch.testing.assert_close(wide.scale, 1.5 * plain.scale)
    assert torch.equal(wide.loc, plain.loc)


@every_family
def test_a_fit_is_repeatable_in_float64_and_leaves_the_target_alone(make) -> None:
    target = GaussianMixture(
        [[1.0, 0.5], [3.0, -1.0]], [[[1.0, 0.3], [0.3, 0.8]], [[0.5, 0.0], [0.0, 0.5]]], [0.8, 0.2]
    )
    before = copy.deepcopy(target.state_dict())
    affines = [make().fit(target) for _ in range(2)]
    assert affines[0].loc.dtype == affines[0].scale.dtype == torch.float64
    assert torch.equal(affines[0].loc, affines[1].loc) and torch.equal(affines[0].scale, affines[1].scale)
    assert {buffer.dtype for buffer in target.buffers()} == {torch.float32}
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


@every_family
def test_a_fit_works_where_gradients_are_switched_off_and_starts_no_graph(make) -> None:
    with torch.no_grad():
        affine = make().fit(correlated())
    assert not affine.loc.requires_grad and not affine.scale.requires_grad
    torch.testing.assert_close(affine.loc, correlated().mean, rtol=1e-6, atol=1e-6)


@every_family
def test_the_empty_law_has_the_shapes_of_a_fit(make) -> None:
    fitted, empty = make().fit(correlated()), make().empty(6)
    empty.load_state_dict(fitted.state_dict())
    assert torch.equal(empty.scale, fitted.scale)


@every_family
def test_the_cost_of_a_fit_is_counted(make) -> None:
    target = CountingTarget(correlated())
    make(num_samples=500).fit(target)
    # at least one draw of the set for each start, one for the fit and one for the check
    assert target.density_evaluations >= 4 * 500
    assert 2 * 500 <= target.gradient_evaluations <= target.density_evaluations


@every_family
@pytest.mark.parametrize(
    "log_prob", [lambda x: x.sum(1), lambda x: -x[:, 0].square() + x[:, 1].square()], ids=["linear", "saddle"]
)
def test_a_density_that_cannot_be_normalised_is_refused_in_one_line(make, log_prob) -> None:
    with pytest.raises(ValueError, match=r"whitening (found no Gaussian|needs a finite).*whitening=standard") as caught:
        make().fit(CallableTarget(log_prob, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [MeanField, LowRank, FullRank])
def test_a_direction_in_which_nothing_changes_is_refused_in_one_line(make) -> None:
    with pytest.raises(ValueError, match=r"found no Gaussian, .* integral .* in every direction.*whitening=standard"):
        make().fit(CallableTarget(lambda x: -0.5 * x[:, 0].square(), 2))


@every_family
def test_a_bounded_support_is_refused_in_one_line(make) -> None:
    target = CallableTarget(lambda x: x.log().sum(1) - x.sum(1), 2)
    with pytest.raises(ValueError, match=r"needs a finite log_prob at every draw of its start: use whitening=standard"):
        make().fit(target)


def test_a_search_that_is_cut_short_says_so() -> None:
    # a mode without curvature, so that Laplace gives no start, and far from N(0, I); E[(s ε)⁴] = 3 s⁴ makes s⁴ = 1/12
    target = CallableTarget(lambda x: -(x - 30).pow(4).sum(1), 2)
    with pytest.raises(ValueError, match=r"mean_field whitening found no Gaussian in num_steps=1 .*: raise it or use"):
        MeanField(num_steps=1).fit(target)
    affine = MeanField(num_samples=4096).fit(target)
    torch.testing.assert_close(affine.loc, torch.full((2,), 30.0).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(affine.scale, torch.full((2,), 12**-0.25).double(), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanField(num_samples=1), "num_samples must be at least 2, got 1"),
        (lambda: FullRank(num_steps=0), "num_steps must be at least 1, got 0"),
        (lambda: Isotropic(inflation=math.inf), "inflation must be positive and finite, got inf"),
        (lambda: LowRank(0), "rank must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
