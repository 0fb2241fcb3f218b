"""How near the particles of a sampler come to exact samples of its target."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import ot
import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.metric.protocol import check_least

__all__ = ["SampleQuality", "mode_shares", "sample_distances"]

MAX_POINTS = 300


@runtime_checkable
class WeightedSamples(Protocol):
    """What a sampler's estimate offers."""

    elbo: float
    parameters: dict[str, Tensor]

    def equally_weighted(self, seed: int = 0) -> dict[str, Tensor]:
        """Samples by name ``[r, n, *shape]``."""


class SampleQuality:
    """Distances of the samples to exact or reference samples, shares of the modes, and the bounds of log Z.

    A key is there where what it needs is there:

    - ``test/elbo``: lower bound of log Z.
    - ``test/eubo``: upper bound, from exact samples.
    - ``test/sliced_w2``: sliced 2-Wasserstein distance to exact or reference samples, in units of the target.
    - ``test/sinkhorn``: Sinkhorn divergence to them at a regularisation of 10 % of their mean squared distance, in
      squared units of the target.
    - ``test/sliced_w2_floor``, ``test/sinkhorn_floor``: the same between two sets of exact samples of that size, below
      which no difference shows.
    - ``test/mode_coverage``: share of the target's modes that hold at least a tenth of their share of exact samples.
    - ``test/mode_distance``: total variation between the shares of the modes of samples and of exact samples.

    Args:
        num_particles: particles of the run that is measured.
        num_steps: its steps; None for the module's own.
        num_samples: samples that are compared, of each side; the Sinkhorn divergence takes 300 of them at most.
        reference: file of reference samples, for targets without an exact sampler: ``.pt`` with a tensor ``[m, d]``,
            or with ``samples`` and ``log_weights`` as ``sbflow sample`` writes it.
        seed: seed of all randomness.

    Raises:
        ValueError: a count out of range.
    """

    def __init__(
        self,
        *,
        num_particles: int = 2000,
        num_steps: int | None = None,
        num_samples: int = 2000,
        reference: str | None = None,
        seed: int = 0,
    ) -> None:
        check_least(1, num_particles=num_particles)
        check_least(2, num_samples=num_samples)
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"num_steps must be at least 1 or null, got {num_steps}")
        self.num_particles = num_particles
        self.num_steps = num_steps
        self.num_samples = num_samples
        self.reference = reference
        self.seed = seed

    def __call__(self, module: torch.nn.Module, data: object = None) -> dict[str, float]:
        """Run the sampler once and compare; ``data`` is there for the common signature of metrics."""
        evidence = module.estimate(num_particles=self.num_particles, num_steps=self.num_steps, seed=self.seed)
        metrics = {"elbo": evidence.elbo, **self.compare(evidence, module.target)}
        if hasattr(module, "upper_bound") and self._exact(module.target, 1) is not None:
            bounds = module.upper_bound(self.num_samples, num_steps=self.num_steps, seed=self.seed)
            metrics["eubo"] = float(bounds.mean())
        return {f"test/{name}": value for name, value in metrics.items()}

    def compare(self, evidence: WeightedSamples, target: torch.nn.Module) -> dict[str, float]:
        """Distances and shares of the modes, without the prefix of the keys; empty without exact samples."""
        exact = self._references(target)
        if exact is None:
            return {}
        drawn = evidence.equally_weighted(self.seed)
        flat = torch.cat([value.reshape(value.shape[0] * value.shape[1], -1) for value in drawn.values()], 1)
        x = _subset(flat.double().cpu(), self.num_samples, self.seed)
        first, second = exact[: len(exact) // 2], exact[len(exact) // 2 :]
        floor = {f"{name}_floor": value for name, value in sample_distances(second, first, self.seed).items()}
        metrics = sample_distances(x, first, self.seed) | floor
        # behind the count of its evaluations
        means = getattr(getattr(target, "target", target), "means", None)
        if means is not None:
            metrics |= mode_shares(x, exact, means.double().cpu())
        return metrics

    def _references(self, target: torch.nn.Module) -> Float[Tensor, "m d"] | None:
        """Twice as many exact samples as are compared, or all of the reference file; None where there are neither."""
        if self.reference is None:
            return self._exact(target, 2 * self.num_samples)
        saved = torch.load(Path(self.reference), map_location="cpu", weights_only=True)
        if isinstance(saved, Tensor):
            return _subset(saved.double(), 2 * self.num_samples, self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.multinomial(
            saved["log_weights"].exp(), 2 * self.num_samples, replacement=True, generator=generator
        )
        return saved["samples"].double()[chosen]

    def _exact(self, target: torch.nn.Module, n: int) -> Float[Tensor, "n d"] | None:
        try:
            samples = target.sample(n, generator=torch.Generator().manual_seed(2**31 + self.seed))
        except NotImplementedError:
            return None
        return target.constrain(samples).double().cpu()


def sample_distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], seed: int = 0) -> dict[str, float]:
    """Sliced 2-Wasserstein distance and Sinkhorn divergence between two sets of samples; see `SampleQuality`.

    References:
        Bonneel, Rabin, Peyré, Pfister, "Sliced and Radon Wasserstein barycenters of measures", 2015.
        Genevay, Peyré, Cuturi, "Learning generative models with Sinkhorn divergences", 2018.
    """
    a, b = x.numpy(), y.numpy()
    sliced = ot.sliced_wasserstein_distance(a, b, n_projections=200, seed=seed)
    small_a, small_b = (_subset(side, MAX_POINTS, seed).numpy() for side in (x, y))
    regularisation = 0.1 * float(np.mean(ot.dist(small_b, small_b)))
    sinkhorn = ot.bregman.empirical_sinkhorn_divergence(
        small_a, small_b, regularisation, method="sinkhorn_log", numIterMax=100, stopThr=1e-4, warn=False
    )
    return {"sliced_w2": float(sliced), "sinkhorn": float(sinkhorn)}


def mode_shares(x: Float[Tensor, "n d"], exact: Float[Tensor, "m d"], means: Float[Tensor, "k d"]) -> dict[str, float]:
    """Coverage and total variation of the modes, each point counting for the nearest mean; see `SampleQuality`."""
    share, expected = (
        torch.bincount(torch.cdist(side, means).argmin(1), minlength=len(means)).double() / len(side)
        for side in (x, exact)
    )
    populated = expected > 0
    return {
        "mode_coverage": float((share >= 0.1 * expected)[populated].double().mean()),
        "mode_distance": float(0.5 * (share - expected).abs().sum()),
    }


def _subset(x: Float[Tensor, "n d"], num: int, seed: int) -> Float[Tensor, "m d"]:
    """At most that many rows, chosen at random."""
    if len(x) <= num:
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:num]]
