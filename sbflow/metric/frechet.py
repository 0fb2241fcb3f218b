"""Fréchet distance between feature sets: the squared 2-Wasserstein distance of the Gaussians fitted to them.

.. math:: ‖m_a − m_b‖² + tr(S_a + S_b − 2 (S_a S_b)^{1/2})
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

__all__ = ["FrechetFloor", "frechet_distance", "frechet_floor"]


class FrechetFloor(NamedTuple):
    """What perfect samples would score.

    Attributes:
        value: distance between two disjoint halves of one set.
        num_samples: samples in each half; the value falls about as 1 / num_samples.
    """

    value: float
    num_samples: int


class _Given(nn.Module):
    """Stands for the network of torchmetrics' metric where the features are already there."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def frechet_distance(a: Float[Tensor, "n features"], b: Float[Tensor, "m features"]) -> float:
    """Fréchet distance of two feature sets, in double precision, with unbiased covariances.

    Raises:
        ValueError: a set has fewer than two samples or holds NaN or infinite values.
    """
    for x in (a, b):
        if len(x) < 2 or not x.isfinite().all():
            raise ValueError(f"the Fréchet distance needs at least 2 finite feature vectors, got {_describe(x)}")
    metric = FrechetInceptionDistance(feature=_Given(a.shape[1]))
    metric.update(a.double().cpu(), real=True)
    metric.update(b.double().cpu(), real=False)
    return float(metric.compute())


def frechet_floor(features: Float[Tensor, "n features"], *, seed: int = 0) -> FrechetFloor:
    """Real-against-real value: the distance between two disjoint random halves of one set.

    Args:
        features: at least four feature vectors of real samples.
        seed: seed of the halving.
    """
    half = len(features) // 2
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    return FrechetFloor(frechet_distance(features[order[:half]], features[order[half : 2 * half]]), half)


def _describe(x: Tensor) -> str:
    return f"{len(x)} of which {int(x.isfinite().all(dim=1).sum())} finite"
