import pytest
import torch

from sbflow.data.planar import Planar
from sbflow.metric.wasserstein import (
    Gaussians,
    MarginalDistance,
    bures_wasserstein,
    fitted_gaussian,
    sliced_wasserstein_distance,
    wasserstein_distance,
)


class Shift:
    device = torch.device("cpu")

    def translate(self, x, direction, *, num_steps=30, generator=None):
        return x + torch.tensor([3.0, 4.0])


def spd(d: int, seed: int) -> torch.Tensor:
    root = torch.randn(d, 2 * d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / d


def test_a_shift_is_as_far_as_it_is_long():
    x = torch.randn(300, 2)
    y = (x + torch.tensor([3.0, 4.0]))[torch.randperm(300)]
    assert wasserstein_distance(x, y) == pytest.approx(5.0, rel=1e-5)
    # a random direction sees half of the squared length: cos² of a uniform angle, variance 1/8
    sliced = sliced_wasserstein_distance(x, y, num_projections=2000)
    assert sliced**2 / 25 == pytest.approx(0.5, abs=5 * (1 / 8 / 2000) ** 0.5)


def test_the_exact_distance_chooses_the_best_pairing_of_unequal_sets():
    two, one = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0]])
    assert wasserstein_distance(two, one) == pytest.approx((0.5 * (1 + 81)) ** 0.5)


def test_distances_of_nonsense_are_refused():
    with pytest.raises(ValueError, match="a distance needs finite samples, got NaN or infinite values"):
        wasserstein_distance(torch.tensor([[float("nan")]]), torch.zeros(1, 1))


def test_gaussians_that_commute_are_as_far_as_their_deviations_and_means():
    scales_a, scales_b = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 0.5]).double()
    a = Gaussians(torch.tensor([1.0, 0.0]).double(), scales_a.square().diag())
    b = Gaussians(torch.zeros(2).double(), scales_b.square().diag())
    assert bures_wasserstein(a, b).item() == pytest.approx(1 + 4 + 2.25)


def test_the_distance_of_correlated_gaussians_is_symmetric_rotation_free_and_batched():
    covariances = torch.stack([spd(3, 0), spd(3, 1)])
    a = Gaussians(torch.zeros(2, 3).double(), covariances)
    b = Gaussians(torch.ones(2, 3).double(), covariances.flip(0))
    distance = bures_wasserstein(a, b)
    assert distance.shape == (2,) and distance[0] == pytest.approx(distance[1].item())
    assert bures_wasserstein(a, a).abs().max() < 1e-10
    # the optimal map T between Gaussians moves each x by (T − I) x, whose mean square is tr (T − I) S_a (T − I)
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * values.sqrt() @ vectors.T
    inner_values, inner_vectors = torch.linalg.eigh(root @ covariances[1] @ root)
    inner = inner_vectors * inner_values.sqrt() @ inner_vectors.T
    move = torch.linalg.inv(root) @ inner @ torch.linalg.inv(root) - torch.eye(3)
    assert distance[0].item() == pytest.approx(3 + (move @ covariances[0] @ move.T).trace().item())


def test_the_fitted_gaussian_has_the_sample_moments():
    x = torch.randn(4, 50, 3)
    fitted = fitted_gaussian(x)
    assert torch.allclose(fitted.mean[2], x[2].double().mean(0))
    assert torch.allclose(fitted.covariance[2], x[2].double().T.cov())


def test_marginal_distance_of_a_shift_and_its_floor():
    data = Planar(source="gaussian", target="gaussian", num_samples=2000, num_test=2000)
    metrics = MarginalDistance(num_samples=400, num_projections=2000)(Shift(), data)
    assert set(metrics) == {
        f"test/{name}{suffix}"
        for name in ("w2", "w2_floor", "sliced_w2", "sliced_w2_floor", "transport_cost")
        for suffix in ("", "_backward")
    }
    for suffix in ("", "_backward"):
        assert metrics["test/transport_cost" + suffix] == pytest.approx(25, rel=1e-5)
        floor = metrics["test/w2_floor" + suffix]
        assert 0 < floor < 0.5
        assert abs(metrics["test/w2" + suffix] - 5) < floor
        assert abs(metrics["test/sliced_w2" + suffix] - 12.5**0.5) < floor


def test_one_direction_suffices_and_others_are_refused():
    data = Planar(num_samples=50, num_test=50)
    metrics = MarginalDistance(num_samples=20, directions=("backward",))(Shift(), data)
    assert metrics and all(name.endswith("_backward") for name in metrics)
    with pytest.raises(ValueError, match="directions must be some of"):
        MarginalDistance(directions=("up",))
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        MarginalDistance(num_samples=1)
