"""Exact samples, normalising constants and reference values."""

import math

import pytest
import torch
from assertions import assert_mean_close
from problems_targets import SAMPLED, gaussian, mixture, needs_data, wells
from torch import Tensor

from sbflow.target import (
    GMM40,
    LGCP,
    Banana,
    CallableTarget,
    CountingTarget,
    DoubleWell,
    Funnel,
    GaussianMixture,
    GaussianTarget,
    Ionosphere,
    ManyWell,
    Mixture2D,
    Sonar,
    StudentTMixture,
    Target,
)


@pytest.mark.parametrize("make", SAMPLED)
def test_exact_samples_and_score_belong_to_the_same_law(make) -> None:
    target = make().double()
    x = target.sample(20_000, generator=torch.Generator().manual_seed(1))
    score = target.score(x)
    # E s = 0 and E x sᵀ = −I by integration by parts; the diagonal, the trace of which is −d
    assert_mean_close(score, 0.0)
    assert_mean_close(x * score, -1.0)


@pytest.mark.parametrize("make", SAMPLED)
def test_samples_follow_the_generator_and_the_dtype_of_the_target(make) -> None:
    target = make().double()
    first, again = (target.sample(5, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert first.shape == (5, target.dim) and first.dtype == torch.float64
    assert torch.equal(first, again)
    assert target.float().sample(5).dtype == torch.float32


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
    assert_mean_close(first_two_moments(x), moments_of_mixture(target))


def test_exact_samples_of_the_funnel_are_standard_normal_in_its_own_scales() -> None:
    target = Funnel().double()
    x = target.sample(40_000, generator=torch.Generator().manual_seed(2))
    expected = torch.tensor([0.0, 9.0] + [0.0] * 9 + [1.0] * 9 + [0.0] * 9, dtype=torch.float64)
    assert_mean_close(statistics_of_funnel(x), expected)


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


def test_gmm40_and_the_banana_integrate_to_one() -> None:
    box = [(-50.0, 50.0, 501)] * 2
    assert integral(GMM40().double(), box) == pytest.approx(1, abs=1e-6)
    bent = [(-8.0, 8.0, 161), (-10.0, 42.0, 521)]
    assert integral(Banana(curvature=0.5, std=1.0).double(), bent) == pytest.approx(1, abs=1e-7)


def test_student_t_mixture_integrates_to_one() -> None:
    target = StudentTMixture(dim=1, freedom=2.0).double()

    # x = sinh(s) brings the heavy tails near
    def density(s: Tensor) -> Tensor:
        return target.log_prob(s.sinh()) + s[:, 0].cosh().log()

    assert integral(CallableTarget(density, dim=1), [(-25.0, 25.0, 40_001)]) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("make", [wells, lambda: DoubleWell(2, 1), lambda: ManyWell(2)])
def test_products_of_wells_integrate_to_their_normaliser(make) -> None:
    target = make().double()
    axes = {1: (-9.0, 9.0, 2001), 2: (-9.0, 9.0, 801), 3: (-8.0, 8.0, 161)}
    total = integral(target, [axes[target.dim]] * target.dim)
    assert math.log(total) == pytest.approx(target.log_normalizer, abs=1e-6)


def test_many_well_has_the_log_z_of_the_literature() -> None:
    assert ManyWell(32).log_normalizer == pytest.approx(164.69568, abs=1e-4)


def test_log_normalizer_is_zero_for_normalised_targets() -> None:
    makes = (GaussianTarget, mixture, Mixture2D, GMM40, Funnel, Banana, StudentTMixture)
    assert [make().log_normalizer for make in makes] == [0.0] * 7


@needs_data
def test_reference_values_of_log_z_come_with_their_standard_error() -> None:
    assert [(t.log_normalizer, t.log_normalizer_stderr) for t in (Sonar(), Ionosphere(), LGCP())] == [
        (-108.384, 0.001),
        (-111.609, 0.0006),
        (501.77, 0.05),
    ]
    assert LGCP(grid_size=5).log_normalizer is None
    assert CountingTarget(Sonar()).log_normalizer_stderr == 0.001
