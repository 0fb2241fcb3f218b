import pytest
import torch
from assertions import assert_mean_close

from sbflow.data.mixture_bridge import MixtureBridgeData


@pytest.mark.parametrize("dim", [2, 16])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_pushing_the_source_through_the_plan_gives_the_target(dim, epsilon):
    """Cov(X1) = E Cov(X1 | X0) + Cov E[X1 | X0], with other x0 than those that made x1."""
    data = MixtureBridgeData(dim=dim, epsilon=epsilon, num_samples=20_000, num_test=4000)
    x0, x1 = data.split("test").x0.double(), data.split("train").x1.double()
    mean, covariance = data.bridge.conditional_moments(x0)
    stderr = (mean.var(0) / len(x0) + x1.var(0) / len(x1)).sqrt()
    assert ((x1.mean(0) - mean.mean(0)).abs() < 5 * stderr).all()
    second = covariance.diagonal(dim1=1, dim2=2) + mean**2
    stderr = (second.var(0) / len(x0) + x1.square().var(0) / len(x1)).sqrt()
    assert ((x1.square().mean(0) - second.mean(0)).abs() < 5 * stderr).all()


def test_the_source_is_standard_normal_and_unpaired():
    split = MixtureBridgeData(dim=2).split("train")
    assert_mean_close(split.x0[:, :, None] * split.x0[:, None], torch.eye(2))
    products = (split.x0 - split.x0.mean(0))[:, :, None] * (split.x1 - split.x1.mean(0))[:, None]
    assert_mean_close(products, 0.0)


@pytest.mark.parametrize("dim", [2, 64, 128])
def test_the_difficulty_does_not_hang_on_the_dimension(dim):
    """Several components matter, none takes everything, and x0 decides between them."""
    data = MixtureBridgeData(dim=dim, num_samples=10, num_test=1000)
    shares = data.bridge.responsibilities(data.split("test").x0)
    assert shares.mean(0).max() < 0.7
    assert 0.5 < shares.max(1).values.mean() < 0.95


def test_the_problem_is_a_function_of_its_own_seed():
    first, same, other = (MixtureBridgeData(seed=s, problem_seed=p) for s, p in ((0, 0), (1, 0), (0, 1)))
    assert torch.equal(first.bridge.means, same.bridge.means) and not torch.equal(
        first.bridge.means, other.bridge.means
    )
    assert not torch.equal(first.split("test").x0, same.split("test").x0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"epsilon": -1.0}, "epsilon must be positive and finite, got -1.0"),
    ],
)
def test_impossible_problems_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixtureBridgeData(**options)
