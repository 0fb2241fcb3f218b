"""Distances between two sets of vectors, and how far a translation's marginals are from the data's."""

from typing import NamedTuple

import numpy as np
import ot
import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.metric.protocol import Direction, Translator, TwoSided, check_least, check_translates, translate_all
from sbflow.tensor import seeded_generator

__all__ = ["MarginalDistance", "bures_wasserstein", "sliced_wasserstein_distance", "wasserstein_distance"]


class Gaussians(NamedTuple):
    """Means and covariances of a batch of laws, in double precision."""

    mean: Float[Tensor, "*batch d"]
    covariance: Float[Tensor, "*batch d d"]


class MarginalDistance:
    """2-Wasserstein distances between the translated samples and held-out samples of the end they should be like.

    Keys, for the forward direction; those of the backward direction end in ``_backward``:

    - ``test/w2``: exact distance of two empirical laws (POT's network simplex), in the units of the data.
    - ``test/w2_floor``: the same between two independent real sets of that size: what perfect samples would score.
    - ``test/sliced_w2``, ``test/sliced_w2_floor``: over ``num_projections`` random directions, of the same sets.
    - ``test/transport_cost``: mean of ‖x̂ − x‖², summed over the elements.

    A distance of empirical laws falls with their size, so values for different ``num_samples`` are not comparable.

    Args:
        num_samples: samples of each set, at least 2; 4000 take 128 MB and some ten seconds for each distance.
        num_steps: steps of the sampler.
        num_projections: directions of the sliced distance.
        directions: what to measure, of "forward" and "backward".
        seed: seed of the choice, the noise and the projections.
        batch_size: samples translated at once.
    """

    def __init__(
        self,
        *,
        num_samples: int = 2000,
        num_steps: int = 30,
        num_projections: int = 500,
        directions: tuple[str, ...] | list[str] = ("forward", "backward"),
        seed: int = 0,
        batch_size: int = 10_000,
    ) -> None:
        check_least(2, num_samples=num_samples)
        check_least(1, num_steps=num_steps, num_projections=num_projections, batch_size=batch_size)
        if not directions or set(directions) - {"forward", "backward"}:
            raise ValueError(f"directions must be some of ['forward', 'backward'], got {list(directions)}")
        self.num_samples = num_samples
        self.num_steps = num_steps
        self.num_projections = num_projections
        self.directions = tuple(directions)
        self.seed = seed
        self.batch_size = batch_size

    def check(self, module: object, data: object) -> None:
        """Refuse an algorithm or data that cannot be measured.

        Raises:
            ValueError: says which.
        """
        check_translates(self, module, data)

    def __call__(self, module: Translator, data: TwoSided) -> dict[str, float]:
        """Translate the test split and compare it with held-out samples."""
        self.check(module, data)
        train, test = data.split("train"), data.split("test")
        metrics: dict[str, float] = {}
        if "forward" in self.directions:
            metrics |= self._measure(module, "forward", test.x0, test.x1, train.x1)
        if "backward" in self.directions:
            backward = self._measure(module, "backward", test.x1, test.x0, train.x0)
            metrics |= {f"{name}_backward": value for name, value in backward.items()}
        return {f"test/{name}": value for name, value in metrics.items()}

    def _measure(
        self, module: Translator, direction: Direction, start: Tensor, end: Tensor, other: Tensor
    ) -> dict[str, float]:
        generator = seeded_generator(self.seed)
        start, end, other = (_subset(x, self.num_samples, generator) for x in (start, end, other))
        moved = translate_all(
            module, start, direction, num_steps=self.num_steps, generator=generator, batch_size=self.batch_size
        )
        sliced = {"num_projections": self.num_projections, "seed": self.seed}
        return {
            "w2": wasserstein_distance(moved, end),
            "w2_floor": wasserstein_distance(other, end),
            "sliced_w2": sliced_wasserstein_distance(moved, end, **sliced),
            "sliced_w2_floor": sliced_wasserstein_distance(other, end, **sliced),
            "transport_cost": (moved.double() - start.double()).flatten(1).square().sum(1).mean().item(),
        }


def wasserstein_distance(x: Float[Tensor, "n *event"], y: Float[Tensor, "m *event"]) -> float:
    """Exact 2-Wasserstein distance of two empirical laws.

    Raises:
        ValueError: a value is not finite.
    """
    a, b = _points(x, y)
    uniform = [np.full(len(end), 1 / len(end)) for end in (a, b)]
    # the default limit of the network simplex, 1e5 pivots, is too low for thousands of points
    squared = ot.emd2(*uniform, ot.dist(a, b, metric="sqeuclidean"), numItermax=100_000_000)
    return max(float(squared), 0.0) ** 0.5


def sliced_wasserstein_distance(
    x: Float[Tensor, "n *event"], y: Float[Tensor, "m *event"], *, num_projections: int = 500, seed: int = 0
) -> float:
    """Sliced 2-Wasserstein distance: root mean square over random directions of the distance of the projections.

    Raises:
        ValueError: a value is not finite.
    """
    a, b = _points(x, y)
    return float(ot.sliced_wasserstein_distance(a, b, n_projections=num_projections, p=2, seed=seed))


def bures_wasserstein(a: Gaussians, b: Gaussians) -> Float[Tensor, "*batch"]:
    """Squared 2-Wasserstein distance of Gaussians, ‖m_a − m_b‖² + tr(S_a + S_b − 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2})."""
    values, vectors = torch.linalg.eigh(a.covariance.double())
    root = (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ b.covariance.double() @ root).clamp_min(0).sqrt().sum(-1)
    traces = (a.covariance.double() + b.covariance.double()).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (a.mean.double() - b.mean.double()).square().sum(-1) + traces - 2 * cross


def fitted_gaussian(x: Float[Tensor, "*batch n d"]) -> Gaussians:
    """Mean and unbiased covariance over the last axis but one."""
    x = x.double()
    mean = x.mean(-2)
    centred = x - mean[..., None, :]
    return Gaussians(mean, centred.mT @ centred / (x.shape[-2] - 1))


def _points(x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    for points in (x, y):
        if not points.isfinite().all():
            raise ValueError("a distance needs finite samples, got NaN or infinite values")
    return x.flatten(1).double().cpu().numpy(), y.flatten(1).double().cpu().numpy()


def _subset(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:count]]
