import pytest
import torch

from sbflow.metric.frechet import frechet_distance, frechet_floor


def with_moments(mean: torch.Tensor, root: torch.Tensor, n: int = 500, seed: int = 0) -> torch.Tensor:
    """Samples whose *empirical* mean is ``mean`` and whose empirical covariance is ``root @ root.T``, exactly."""
    z = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = z - z.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(z.T.cov()), z.T, upper=False).T
    return white @ root.T + mean


def test_distance_of_gaussians_with_diagonal_covariances_is_the_closed_form():
    mean, a, b = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, -2.0, 0.5], [1.0, 2.0, 3.0], [0.5, 2.0, 1.0]))
    distance = frechet_distance(with_moments(mean, a.diag()), with_moments(torch.zeros(3), b.diag(), n=300, seed=1))
    assert distance == pytest.approx((mean.square().sum() + (a - b).square().sum()).item(), rel=1e-9)


def test_distance_does_not_change_under_a_common_rotation():
    generator = torch.Generator().manual_seed(2)
    roots = [torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    a, b = (with_moments(torch.zeros(4), root, seed=k) for k, root in enumerate(roots))
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(frechet_distance(a, b), rel=1e-8)


def test_distance_of_a_set_to_itself_vanishes_even_with_dead_features():
    a = torch.cat([with_moments(torch.ones(3), torch.eye(3).double()), torch.zeros(500, 2)], dim=1)
    assert abs(frechet_distance(a, a.flip(0))) < 1e-6


def test_single_precision_features_are_compared_in_double_precision():
    a = with_moments(torch.full((2,), 1000.0), torch.eye(2).double()).float()
    b = with_moments(torch.full((2,), 1000.0), 1.1 * torch.eye(2).double()).float()
    # the features themselves are rounded to 1000 / 2^24; sums of their squares in float32 would be off by over 1
    assert frechet_distance(a, b) == pytest.approx(2 * 0.1**2, rel=1e-2)


def test_the_floor_is_the_sampling_error_of_two_halves():
    d, half, repeats = 4, 1000, 40
    generator = torch.Generator().manual_seed(0)
    floors = [frechet_floor(torch.randn(2 * half + 1, d, generator=generator), seed=k) for k in range(repeats)]
    assert {floor.num_samples for floor in floors} == {half}
    values = torch.tensor([floor.value for floor in floors])
    # to first order: means 2 d / half, covariances ‖Sa − Sb‖² / 4 with E‖Sa − Sb‖² = 2 d (d + 1) / half
    expected = 2 * d / half + d * (d + 1) / (2 * half)
    assert abs(values.mean() - expected) < 5 * values.std() / repeats**0.5


@pytest.mark.parametrize("bad", [torch.zeros(1, 2), torch.full((5, 2), float("inf"))])
def test_sets_without_a_covariance_are_refused(bad):
    with pytest.raises(ValueError, match="at least 2 finite feature vectors, got"):
        frechet_distance(bad, torch.randn(5, 2))
