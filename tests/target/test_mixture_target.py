import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from sbflow.target import Funnel, GaussianMixture, GaussianTarget, Mixture2D


def points(n: int, d: int) -> torch.Tensor:
    return 3 * torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.usefixtures("double_default")
def test_mixture_2d_is_the_average_of_three_gaussians_and_their_mirror_images() -> None:
    x = points(50, 2)
    means = torch.tensor([[3.0, 0.0], [-2.5, 0.0], [2.0, 3.0]], dtype=torch.float64)
    covariances = torch.tensor([[[0.7, 0], [0, 0.05]]] * 2 + [[[1, 0.95], [0.95, 1]]], dtype=torch.float64)
    three = MixtureSameFamily(Categorical(torch.ones(3).double()), MultivariateNormal(means, covariances))
    expected = torch.logaddexp(three.log_prob(x), three.log_prob(x.flip(1))) - torch.tensor(2.0).double().log()
    torch.testing.assert_close(Mixture2D().log_prob(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("double_default")
def test_mixture_2d_is_symmetric_under_exchange_of_the_coordinates() -> None:
    x = points(50, 2)
    target = Mixture2D()
    torch.testing.assert_close(target.log_prob(x), target.log_prob(x.flip(1)), rtol=1e-12, atol=1e-12)


def test_gaussian_has_the_density_of_the_multivariate_normal() -> None:
    a = points(4, 4)
    mean, covariance = a[0], a @ a.T + torch.eye(4).double()
    target = GaussianTarget(mean, covariance)
    expected = MultivariateNormal(mean, covariance).log_prob(points(20, 4))
    torch.testing.assert_close(target.log_prob(points(20, 4)), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(target.mean, mean, rtol=0, atol=0)
    torch.testing.assert_close(target.covariance, covariance, rtol=0, atol=0)


@pytest.mark.usefixtures("double_default")
def test_gaussian_by_default_is_the_one_of_the_paper() -> None:
    x = points(9, 1)
    expected = Normal(torch.tensor(2.75).double(), torch.tensor(0.25).double()).log_prob(x[:, 0])
    torch.testing.assert_close(GaussianTarget().log_prob(x), expected, rtol=1e-12, atol=1e-12)


def test_funnel_factorises_into_its_neck_and_the_rest() -> None:
    x = points(20, 10)
    neck = Normal(torch.tensor(0.0).double(), torch.tensor(3.0).double()).log_prob(x[:, 0])
    rest = Normal(torch.zeros(20, 9).double(), (0.5 * x[:, :1]).exp().expand(20, 9)).log_prob(x[:, 1:]).sum(1)
    torch.testing.assert_close(Funnel().log_prob(x), neck + rest, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0]], [[[1.0, 0.0]]], [1.0]), r"covariances must have shape \[1, 1, 1\]"),
        (([[0.0]], [[[1.0]]], [0.5, 0.5]), r"weights must have shape \[1\]"),
        (([[0.0], [1.0]], [[[1.0]], [[1.0]]], [0.5, 0.6]), "weights must be positive and sum to 1"),
        (([[0.0], [1.0]], [[[1.0]], [[1.0]]], [1.5, -0.5]), "weights must be positive and sum to 1"),
        (([[0.0]], [[[-1.0]]], [1.0]), "covariances must be symmetric positive definite"),
        (([[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]], [1.0]), "covariances must be symmetric positive definite"),
        (([[float("nan")]], [[[1.0]]], [1.0]), "means must be finite"),
    ],
)
def test_mixture_names_the_bad_argument(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


def test_gaussian_and_funnel_name_the_bad_argument() -> None:
    with pytest.raises(ValueError, match=r"mean \[d\] and covariance \[d, d\] must agree"):
        GaussianTarget([0.0, 0.0], [[1.0]])
    with pytest.raises(ValueError, match="dim must be at least 2, got 1"):
        Funnel(dim=1)
    with pytest.raises(ValueError, match="std must be positive and finite, got -1"):
        Funnel(std=-1.0)
