"""Error of a learned bridge between Gaussians against the closed form of `sbflow.process.gaussian_bridge`."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.metric.protocol import (
    BridgeTranslator,
    Direction,
    Translator,
    TwoSided,
    check_least,
    check_translates,
    translate_all,
)
from sbflow.metric.wasserstein import Gaussians, fitted_gaussian
from sbflow.process import GaussianBridge, gaussian_bridge

__all__ = ["GaussianCoupling", "gaussian_bridge", "gaussian_kl"]


@runtime_checkable
class GaussianPair(TwoSided, Protocol):
    """Gaussian data of known moments."""

    mean0: Tensor
    mean1: Tensor
    cov0: Tensor
    cov1: Tensor


class GaussianCoupling:
    """Compares the coupling and the marginals that a module generates with the closed form.

    All moments are empirical, over ``num_samples`` test samples x and their translations x̂. Keys, for the forward
    direction; those of the backward direction end in ``_backward``:

    - ``test/cross_covariance_error``: ‖Ĉ − C‖ / ‖C‖ in the Frobenius norm, with C = Cov(X0, X1);
      ``test/cross_covariance_error_floor``: root mean square that exact samples would score.
    - ``test/cross_covariance_mean``: mean of the diagonal of Ĉ.
    - ``test/variance_mean``: mean variance of the generated end over its coordinates.
    - ``test/joint_kl``: divergence, in nats, of the Gaussian fitted to the pairs (x, x̂) from the exact joint law;
      ``test/joint_kl_floor``: p (p + 3) / 4n with p = 2 dim, its mean over n exact samples.
    - ``test/cross_covariance_mean_exact`` (no suffix: it is the same both ways), ``test/variance_mean_exact``.

    Args:
        num_samples: test samples of each end, at least 2; the relative error of a moment is about
            ``num_samples ** -0.5``.
        num_steps: steps of the sampler, whose discretisation is part of what is measured.
        seed: seed of the sampler's noise.
        batch_size: samples translated at once.
    """

    def __init__(
        self, *, num_samples: int = 10_000, num_steps: int = 30, seed: int = 0, batch_size: int = 20_000
    ) -> None:
        check_least(2, num_samples=num_samples)
        check_least(1, num_steps=num_steps, batch_size=batch_size)
        self.num_samples = num_samples
        self.num_steps = num_steps
        self.seed = seed
        self.batch_size = batch_size

    def check(self, module: object, data: object) -> None:
        """Refuse data whose Gaussian moments are not known, or a module without a reference process.

        Raises:
            ValueError: says which.
        """
        check_translates(self, module, data)
        if not isinstance(data, GaussianPair):
            raise ValueError(
                f"metric GaussianCoupling needs data with known moments (data=gaussians), got {type(data).__name__}"
            )
        if not hasattr(getattr(module, "process", None), "epsilon"):
            raise ValueError(
                f"metric GaussianCoupling needs a Brownian reference, and {type(module).__name__} has none"
            )

    def __call__(self, module: BridgeTranslator, data: GaussianPair) -> dict[str, float]:
        """Translate both ends of the test split and compare moments."""
        self.check(module, data)
        test = data.split("test")
        bridge = GaussianBridge(data.mean0, data.mean1, data.cov0, data.cov1, module.process.epsilon)
        forward = self._measure(module, "forward", test.x0, bridge)
        backward = self._measure(module, "backward", test.x1, bridge.reversed())
        metrics = forward | {f"{name}_backward": value for name, value in backward.items()}
        metrics["cross_covariance_mean_exact"] = bridge.cross.diagonal().mean().item()
        return {f"test/{name}": value for name, value in metrics.items()}

    def _measure(self, module: Translator, direction: Direction, x: Tensor, bridge: GaussianBridge) -> dict[str, float]:
        x = x[: self.num_samples]
        # apart from the small seeds that data are drawn with: noise from the stream of the samples correlates with them
        generator = torch.Generator().manual_seed(2**31 + self.seed)
        y = translate_all(
            module, x, direction, num_steps=self.num_steps, generator=generator, batch_size=self.batch_size
        )
        n, dim = x.shape
        fitted, exact = fitted_gaussian(torch.cat([x, y], dim=1)), _joint(bridge)
        cross = fitted.covariance[:dim, dim:]
        return {
            "cross_covariance_error": ((cross - bridge.cross).norm() / bridge.cross.norm()).item(),
            "cross_covariance_error_floor": _cross_floor(bridge, n),
            "cross_covariance_mean": cross.diagonal().mean().item(),
            "variance_mean": fitted.covariance.diagonal()[dim:].mean().item(),
            "variance_mean_exact": bridge.cov1.diagonal().mean().item(),
            "joint_kl": gaussian_kl(fitted, exact),
            "joint_kl_floor": 2 * dim * (2 * dim + 3) / (4 * n),
        }


def gaussian_kl(a: Gaussians, b: Gaussians) -> float:
    """Divergence of N(a) from N(b) in nats; infinite where a is singular (fewer samples than dimensions)."""
    root = torch.linalg.cholesky(b.covariance)
    whitened = torch.linalg.solve_triangular(root, a.covariance, upper=False)
    ratio = torch.linalg.solve_triangular(root, whitened.mT, upper=False)
    shift = torch.linalg.solve_triangular(root, (a.mean - b.mean)[:, None], upper=False)
    values = torch.linalg.eigvalsh((ratio + ratio.mT) / 2).clamp_min(0)
    return 0.5 * ((values - 1 - values.log()).sum() + shift.square().sum()).item()


def _joint(bridge: GaussianBridge) -> Gaussians:
    top = torch.cat([bridge.cov0, bridge.cross], dim=1)
    bottom = torch.cat([bridge.cross.T, bridge.cov1], dim=1)
    return Gaussians(torch.cat([bridge.mean0, bridge.mean1]), torch.cat([top, bottom]))


def _cross_floor(bridge: GaussianBridge, num_samples: int) -> float:
    """Var Ĉ_ij is (S0_ii S1_jj + C_ij²) / n for Gaussian samples."""
    products: Float[Tensor, "d d"] = bridge.cov0.diagonal()[:, None] * bridge.cov1.diagonal() + bridge.cross**2
    return ((products.sum() / num_samples).sqrt() / bridge.cross.norm()).item()
