import pytest
import torch
from assertions import assert_mean_close

from sbflow.data.gaussians import Gaussians


def test_scalar_deviations_make_multiples_of_the_identity():
    data = Gaussians(dim=3, std0=2.0, std1=0.5)
    assert torch.equal(data.cov0, 4 * torch.eye(3)) and torch.equal(data.cov1, 0.25 * torch.eye(3))
    assert torch.equal(data.mean0, torch.full((3,), -0.1))


def test_one_deviation_and_mean_per_coordinate_is_diagonal():
    data = Gaussians(dim=2, std0=[1.0, 3.0], mean1=[0.0, 5.0])
    assert torch.equal(data.cov0, torch.tensor([1.0, 9.0]).diag()) and torch.equal(data.mean1, torch.tensor([0.0, 5.0]))


def test_random_covariances_are_a_function_of_their_seed_and_differ_between_the_ends():
    first, same, other = (Gaussians(dim=20, cov0="random", cov1="random", covariance_seed=s) for s in (0, 0, 1))
    assert torch.equal(first.cov0, same.cov0) and not torch.equal(first.cov0, other.cov0)
    assert not torch.equal(first.cov0, first.cov1) and torch.linalg.eigvalsh(first.cov0)[0] > 0
    # the mean variance of G Gᵀ / 2d over d coordinates is 1 with variance 2 / 2d²
    assert abs(first.cov0.diagonal().mean() - 1) < 5 / 20
    scaled = Gaussians(dim=20, cov0="random", std0=3.0)
    assert torch.allclose(scaled.cov0, 9 * first.cov0, rtol=1e-4)


def test_samples_have_the_moments_and_the_splits_are_independent():
    data = Gaussians(
        dim=3, cov0="random", cov1=[[2.0, 0.5, 0.0], [0.5, 1.0, 0.1], [0.0, 0.1, 0.3]], mean0=[1.0, 0.0, -1.0]
    )
    for split in ("train", "test"):
        x0, x1 = data.split(split).x0, data.split(split).x1
        assert_mean_close(x0, data.mean0)
        centred = x1 - data.mean1
        assert_mean_close(centred[:, :, None] * centred[:, None], data.cov1)
    products = (data.split("train").x0 - data.mean0) * (data.split("test").x0 - data.mean0)
    assert_mean_close(products, 0.0)


def test_the_bridge_belongs_to_the_data():
    data = Gaussians(dim=2, std1=2.0)
    assert torch.allclose(data.bridge(1.0).cross, 1.5615528 * torch.eye(2).double(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"num_samples": 1}, "num_samples must be at least 2, got 1"),
        ({"std0": -1.0}, "std0 must be positive, got -1.0"),
        ({"std1": [1.0, 2.0]}, r"std1 must be one finite number or 3 of them \(dim\)"),
        ({"mean0": float("nan")}, "mean0 must be one finite number or 3 of them"),
        ({"cov0": [[1.0, 0.0], [0.0, 1.0]]}, r"cov0 must be a positive definite \[3, 3\] matrix"),
        ({"cov1": (-torch.eye(3)).tolist()}, r"cov1 must be a positive definite \[3, 3\] matrix"),
        ({"cov1": "wishart"}, "cov1 must be a .* matrix, \"random\" or null, got 'wishart'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Gaussians(**{"dim": 3} | options)
