import math

import pytest
import torch
from assertions import assert_mean_close
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, StudentT

from sbflow.potential import MixturePotential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.target import GMM40, Banana, DoubleWell, ManyWell, ProductOfWells, StudentTMixture


def points(n: int, d: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_gmm40_has_the_means_and_the_scale_of_the_literature() -> None:
    target = GMM40()
    torch.manual_seed(0)
    expected = (torch.rand(40, 2) - 0.5) * 2 * 40
    torch.testing.assert_close(target.means, expected, rtol=1e-6, atol=1e-5)
    std = torch.nn.functional.softplus(torch.tensor(1.0)).item()
    torch.testing.assert_close(target.covariances[3], std**2 * torch.eye(2))
    torch.testing.assert_close(target.weights, torch.full((40,), 1 / 40))


@pytest.mark.usefixtures("double_default")
@pytest.mark.parametrize("dim", [2, 6])
def test_the_exact_potential_of_gmm40_starts_at_its_ratio_to_the_reference(dim) -> None:
    target = GMM40(dim, num_components=12, half_width=4.0)
    potential = MixturePotential(target.means, target.covariances, target.weights, OrnsteinUhlenbeck())
    x = points(20, dim)
    zero = torch.zeros(1, dtype=torch.float64)
    reference = Normal(torch.zeros(dim).double(), torch.ones(dim).double()).log_prob(x).sum(1)
    torch.testing.assert_close(potential.log_g(x, zero), target.log_prob(x) - reference, rtol=1e-9, atol=1e-9)


def test_student_t_mixture_is_a_mixture_of_independent_student_coordinates() -> None:
    target = StudentTMixture(dim=3, num_components=4, freedom=3.5, half_width=5.0, scale=0.6).double()
    freedom, scale = torch.tensor([3.5, 0.6], dtype=torch.float64)
    laws = Independent(StudentT(freedom, target.means, scale), 1)
    expected = MixtureSameFamily(Categorical(torch.ones(4).double()), laws).log_prob(points(30, 3))
    torch.testing.assert_close(target.log_prob(points(30, 3)), expected, rtol=1e-12, atol=1e-12)
    assert target.means.abs().max() <= 5


def test_samples_of_a_student_t_have_its_quantiles() -> None:
    target = StudentTMixture(dim=1, num_components=1, freedom=2.0, scale=1.5).double()
    x = (target.sample(40_000, generator=torch.Generator().manual_seed(1)) - target.means) / 1.5
    # with two degrees of freedom, P(T ≤ t) = ½ + t / (2 √(2 + t²))
    t = torch.tensor([-30.0, -3.0, -0.5, 1.0, 8.0], dtype=torch.float64)
    assert_mean_close((x <= t).double(), 0.5 + 0.5 * t / (2 + t**2).sqrt())


def test_the_banana_is_a_gaussian_after_straightening() -> None:
    target, x = Banana(dim=3, curvature=0.3, std=2.0).double(), points(20, 3)
    mean = 0.3 * (x[:, 0] ** 2 - 4)
    one = torch.ones(20).double()
    expected = Normal(0 * one, 2 * one).log_prob(x[:, 0]) + Normal(mean, one).log_prob(x[:, 1])
    expected = expected + Normal(0 * one, one).log_prob(x[:, 2])
    torch.testing.assert_close(target.log_prob(x), expected, rtol=1e-12, atol=1e-12)
    samples = target.sample(40_000, generator=torch.Generator().manual_seed(2))
    assert_mean_close(samples, 0.0)
    # Cov(x₁², x₂) = curvature Var(x₁²) = 2 curvature std⁴
    assert_mean_close(samples[:, 0] ** 2 * samples[:, 1], 2 * 0.3 * 2**4)


def test_many_well_pairs_the_double_well_of_the_literature_with_a_gaussian() -> None:
    x = points(20, 4, scale=1.5)
    first, second = x[:, ::2], x[:, 1::2]
    expected = (-(first**4) + 6 * first**2 + 0.5 * first - 0.5 * second**2).sum(1)
    torch.testing.assert_close(ManyWell(4).double().log_prob(x), expected, rtol=1e-12, atol=1e-10)


def test_double_well_has_wells_in_the_first_coordinates_only() -> None:
    x = points(20, 3)
    expected = -2 * (x[:, 0] ** 2 - 1.5) ** 2 - 0.5 * x[:, 1:].square().sum(1)
    target = DoubleWell(dim=3, num_wells=1, separation=1.5, weight=2.0).double()
    torch.testing.assert_close(target.log_prob(x), expected, rtol=1e-12, atol=1e-10)


def test_samples_of_many_well_fall_into_both_wells_by_their_mass() -> None:
    target = ManyWell(2).double()
    x = target.sample(40_000, generator=torch.Generator().manual_seed(3))[:, 0]
    grid = torch.linspace(-5, 5, 20_001, dtype=torch.float64)
    density = (-(grid**4) + 6 * grid**2 + 0.5 * grid).exp()
    density = density / density.sum()
    assert_mean_close((x > 0).double(), density[grid > 0].sum().item())
    for power in (1, 2, 4):
        assert_mean_close(x**power, (density * grid**power).sum().item())


def test_a_single_deep_well_keeps_its_normaliser() -> None:
    # far below the smallest number at its top: a normaliser that is not computed on the log scale vanishes
    target = ProductOfWells(torch.tensor([True]), weight=1.0, separation=-30.0)
    # −(x² + 30)² ≈ −900 − 60 x² − x⁴
    grid = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    expected = -900 + (-60 * grid**2 - grid**4).logsumexp(0).item() + math.log(1e-3)
    assert target.log_normalizer == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GMM40(dim=0), "dim must be at least 1, got 0"),
        (lambda: GMM40(std=-1.0), "std must be positive and finite, got -1"),
        (lambda: StudentTMixture(freedom=0.0), "freedom must be positive and finite, got 0"),
        (lambda: StudentTMixture(num_components=0), "num_components must be at least 1, got 0"),
        (lambda: Banana(dim=1), "dim must be at least 2, got 1"),
        (lambda: Banana(std=0.0), "std must be positive and finite, got 0"),
        (lambda: Banana(curvature=math.inf), "curvature must be finite, got inf"),
        (lambda: DoubleWell(dim=2, num_wells=3), "num_wells must be between 1 and dim = 2, got 3"),
        (lambda: DoubleWell(weight=0.0), "weight must be positive and finite, got 0"),
        (lambda: DoubleWell(separation=math.nan), "separation must be finite, got nan"),
        (lambda: ManyWell(dim=3), "dim must be even and at least 2, got 3"),
    ],
)
def test_bad_arguments_are_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
