from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from sbflow.metric.coupling import GaussianCoupling, gaussian_bridge, gaussian_kl
from sbflow.metric.wasserstein import Gaussians


class Pair(NamedTuple):
    x0: torch.Tensor
    x1: torch.Tensor
    labels0: None = None
    labels1: None = None


class GaussianData:
    def __init__(self, cov0: torch.Tensor, cov1: torch.Tensor, n: int) -> None:
        generator = torch.Generator().manual_seed(0)
        z0, z1 = torch.randn(2, n, len(cov0), generator=generator, dtype=torch.float64)
        self.cov0, self.cov1 = cov0, cov1
        self.mean0, self.mean1 = torch.full((len(cov0),), -0.1).double(), torch.full((len(cov0),), 0.1).double()
        self.pair = Pair(
            self.mean0 + z0 @ torch.linalg.cholesky(cov0).T, self.mean1 + z1 @ torch.linalg.cholesky(cov1).T
        )

    def split(self, split: str) -> Pair:
        return {"test": self.pair}[split]


class ExactBridge:
    """Draws from the closed-form conditional law of either end given the other."""

    device = torch.device("cpu")

    def __init__(self, data: GaussianData, epsilon: float) -> None:
        self.process = SimpleNamespace(epsilon=epsilon)
        self.data = data
        self.cross = gaussian_bridge(data.cov0, data.cov1, epsilon)

    def translate(self, x, direction, *, num_steps=30, generator=None):
        d = self.data
        start, end, cov, target, cross = (
            (d.mean0, d.mean1, d.cov0, d.cov1, self.cross)
            if direction == "forward"
            else (d.mean1, d.mean0, d.cov1, d.cov0, self.cross.T)
        )
        gain = torch.linalg.solve(cov, cross).T
        noise = torch.linalg.cholesky(target - gain @ cross)
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return end + (x - start) @ gain.T + z @ noise.T


class Independent(ExactBridge):
    """Ignores its input."""

    def translate(self, x, direction, *, num_steps=30, generator=None):
        fresh = GaussianData(self.data.cov0, self.data.cov1, len(x)).pair
        return (fresh.x1 if direction == "forward" else fresh.x0).roll(1, 0)


def random_covariance(d: int, seed: int) -> torch.Tensor:
    root = torch.randn(d, 2 * d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / (2 * d)


@pytest.mark.parametrize(
    ("s0", "s1", "epsilon", "expected"),
    [(1, 1, 1.0, 0.6180340), (1, 1, 0.5, 0.7807764), (1, 1, 0.25, 0.8827822), (1, 2, 1.0, 1.5615528)],
)
def test_scalar_bridges_have_the_published_covariance(s0, s1, epsilon, expected):
    identity = torch.eye(3)
    cross = gaussian_bridge(s0**2 * identity, s1**2 * identity, epsilon)
    assert torch.allclose(cross, expected * identity.double(), atol=5e-8)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 7.0])
def test_the_conditional_law_solves_the_riccati_equation(epsilon):
    cov0, cov1 = random_covariance(4, 0), 3 * random_covariance(4, 1)
    gain = torch.linalg.solve(cov0, gaussian_bridge(cov0, cov1, epsilon))
    assert torch.allclose(gain, gain.T, atol=1e-10) and torch.linalg.eigvalsh(gain)[0] > 0
    assert torch.allclose(gain @ cov0 @ gain + epsilon * gain, cov1, atol=1e-10)


def test_the_joint_precision_couples_the_ends_as_the_brownian_kernel_does():
    cov0, cov1, epsilon = random_covariance(3, 2), random_covariance(3, 3), 0.7
    cross = gaussian_bridge(cov0, cov1, epsilon)
    precision = torch.linalg.inv(torch.cat([torch.cat([cov0, cross], 1), torch.cat([cross.T, cov1], 1)]))
    assert torch.allclose(precision[:3, 3:], -torch.eye(3).double() / epsilon, atol=1e-9)


def test_reversing_time_transposes_the_coupling():
    cov0, cov1 = random_covariance(4, 4), random_covariance(4, 5)
    assert torch.allclose(gaussian_bridge(cov1, cov0, 0.3), gaussian_bridge(cov0, cov1, 0.3).T, atol=1e-10)


def test_without_noise_the_bridge_is_optimal_transport():
    scales0, scales1 = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.5, 4.0, 1.0]).double()
    cross = gaussian_bridge(scales0.square().diag(), scales1.square().diag(), 0.0)
    assert torch.allclose(cross, (scales0 * scales1).diag(), atol=1e-10)


@pytest.mark.parametrize(
    ("cov0", "epsilon", "message"),
    [
        (torch.eye(2), -1.0, "epsilon must be at least 0 and finite, got -1.0"),
        (torch.diag(torch.tensor([1.0, 0.0])), 1.0, "cov0 must be symmetric and positive definite"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), 1.0, "cov0 must be symmetric"),
    ],
)
def test_impossible_bridges_are_refused(cov0, epsilon, message):
    with pytest.raises(ValueError, match=message):
        gaussian_bridge(cov0, torch.eye(2), epsilon)


def test_the_exact_bridge_is_within_sampling_error_of_the_closed_form_both_ways():
    data = GaussianData(random_covariance(3, 6), 2 * random_covariance(3, 7), n := 20_000)
    module = ExactBridge(data, epsilon=0.5)
    metrics = GaussianCoupling(num_samples=n)(module, data)
    diagonals = data.cov0.diagonal()[:, None] * data.cov1.diagonal()
    # Var of an empirical covariance: (S0_ii S1_jj + C_ij²) / n; the root mean square of the whole norm, times 3
    rms = ((diagonals + module.cross**2).sum() / n).sqrt() / module.cross.norm()
    for suffix, cov in (("", data.cov1), ("_backward", data.cov0)):
        assert metrics["test/cross_covariance_error" + suffix] < 3 * rms
        stderr = (2 * cov.diagonal().square() / n).sqrt().mean()
        assert metrics["test/variance_mean_exact" + suffix] == pytest.approx(cov.diagonal().mean().item())
        assert abs(metrics["test/variance_mean" + suffix] - metrics["test/variance_mean_exact" + suffix]) < 5 * stderr
        stderr = (diagonals.diagonal() + module.cross.diagonal() ** 2).div(n).sqrt().mean()
        deviation = metrics["test/cross_covariance_mean" + suffix] - metrics["test/cross_covariance_mean_exact"]
        assert abs(deviation) < 5 * stderr


def test_the_independent_coupling_is_off_by_the_whole_covariance():
    data = GaussianData(torch.eye(2).double(), torch.eye(2).double(), 20_000)
    metrics = GaussianCoupling(num_samples=20_000)(Independent(data, 1.0), data)
    relative_noise = (2 * 2 / 20_000) ** 0.5 / (0.618 * 2**0.5)
    assert abs(metrics["test/cross_covariance_error"] - 1) < 5 * relative_noise
    assert abs(metrics["test/cross_covariance_error_backward"] - 1) < 5 * relative_noise


def test_the_divergence_of_gaussians_is_that_of_torch_distributions():
    a, b = (
        Gaussians(torch.randn(3, dtype=torch.float64), random_covariance(3, seed) + torch.eye(3)) for seed in (6, 7)
    )
    laws = [torch.distributions.MultivariateNormal(*law) for law in (a, b)]
    assert gaussian_kl(a, b) == pytest.approx(torch.distributions.kl_divergence(*laws).item(), rel=1e-9)


def test_the_joint_divergence_of_the_exact_bridge_is_at_its_floor():
    n, d = 20_000, 3
    data = GaussianData(random_covariance(d, 8), 2 * random_covariance(d, 9), n)
    metrics = GaussianCoupling(num_samples=n)(ExactBridge(data, 0.6), data)
    p = 2 * d
    for suffix in ("", "_backward"):
        floor = metrics["test/joint_kl_floor" + suffix]
        assert floor == pytest.approx(p * (p + 3) / (4 * n))
        # 2 n KL is chi-squared with p (p + 3) / 2 degrees of freedom, of deviation sqrt(p (p + 3))
        assert abs(metrics["test/joint_kl" + suffix] - floor) < 5 * (p * (p + 3)) ** 0.5 / (2 * n)


def test_the_joint_divergence_of_independent_ends_is_their_mutual_information():
    data = GaussianData(torch.eye(2).double(), torch.eye(2).double(), 20_000)
    metrics = GaussianCoupling(num_samples=20_000)(Independent(data, 1.0), data)
    c = 0.6180340
    # two pairs of correlation c: KL of independence from them is c²/(1−c²) + ½ log(1−c²) each
    expected = 2 * (c**2 / (1 - c**2) + 0.5 * torch.tensor(1 - c**2).log().item())
    assert metrics["test/joint_kl"] == pytest.approx(expected, rel=0.1)


def test_data_of_unknown_moments_and_modules_without_a_reference_are_refused():
    data = GaussianData(torch.eye(2).double(), torch.eye(2).double(), 10)
    with pytest.raises(ValueError, match=r"needs data with known moments \(data=gaussians\), got SimpleNamespace"):
        GaussianCoupling().check(ExactBridge(data, 1.0), SimpleNamespace(split=None))
    with pytest.raises(ValueError, match="needs a Brownian reference, and SimpleNamespace has none"):
        GaussianCoupling().check(SimpleNamespace(translate=None), data)
