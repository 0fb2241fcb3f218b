"""What training says about itself: moments of what it generates, distances, consistency of the two drifts."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.loss import Pairs, stratified_times
from sbflow.process import Brownian
from sbflow.tensor import expand_to, flat_sum

__all__ = ["Generated", "consistency", "drift_sum", "energy_distance", "generated", "translations"]

Drift = Callable[[Tensor, Tensor, Tensor], Tensor]


@runtime_checkable
class MeasuredDrift(Protocol):
    """Drift of both directions that knows its reference and the means of the data, `sbflow.network.BridgeDrift`."""

    epsilon: float
    mean: Tensor

    def __call__(self, x: Tensor, u: Tensor, direction: Tensor) -> Tensor:
        """Drift at own-clock time u."""


class Generated(NamedTuple):
    """One direction's translations against the data.

    Attributes:
        msd: mean squared distance per element between a translation and its source, the transport cost.
        variance_ratio: second moment of the translations about the mean of the target, over its variance.
        mean_error: root mean square difference of the means, in standard deviations of the target.
    """

    msd: Tensor
    variance_ratio: Tensor
    mean_error: Tensor


def generated(
    source: Float[Tensor, "n *event"], made: Float[Tensor, "n *event"], mean: Tensor, variance: Tensor
) -> Generated:
    """Compare translations with the measured moments of their target."""
    deviation = made - mean
    scale = variance.mean()
    axes = [0, *(1 + i for i, size in enumerate(mean.shape) if size == 1 and made.shape[1 + i] > 1)]
    bias = deviation.mean(dim=axes)
    return Generated(
        msd=(made - source).square().mean(),
        variance_ratio=deviation.square().mean() / variance.expand(made.shape[1:]).mean(),
        mean_error=(bias.square().mean() / scale).sqrt(),
    )


def energy_distance(x: Float[Tensor, "n *event"], y: Float[Tensor, "m *event"]) -> Float[Tensor, ""]:
    """Unbiased estimate of 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖: zero where the laws are equal, positive elsewhere.

    Needs two samples of each.

    References:
        Székely & Rizzo, "Energy statistics", 2013.
    """
    x, y = (z.flatten(1).float() for z in (x, y))
    return 2 * torch.cdist(x, y).mean() - _spread(x) - _spread(y)


def consistency(drift: MeasuredDrift, pairs: Pairs, exact: object = None) -> dict[str, Tensor]:
    """How well the two drifts belong to one process, for which f + b = ε∇ log p_t.

    Integration by parts gives E[f + b] = 0 and E[(X_t − E X_t) · (f + b)] = −ε d, whatever p_t.

    Args:
        drift: of both directions.
        pairs: coupled ends, on whose bridges the drifts are compared.
        exact: the known bridge, with Gaussian ``marginal(t)``; compared at t = ½ where it has one.

    Returns:
        ``drift_consistency``: −E[(X − m) · (f + b)] / (ε d), 1 for one process; ``drift_bias``: the root mean square of
        E[f + b] over √ε; ``drift_error``, where known: the relative root mean square error of f + b.
    """
    epsilon, process = drift.epsilon, Brownian(drift.epsilon)
    u = stratified_times(len(pairs.start), 0.02, 0.98, like=pairs.start)
    t = torch.where(pairs.direction == 0, u, 1 - u)
    x = process.bridge(pairs.start, pairs.end, u).sample()
    total = drift_sum(drift, x, t)
    centred = x - torch.lerp(drift.mean[0], drift.mean[1], expand_to(t, x))
    values = {
        "drift_consistency": -flat_sum(centred * total).mean() / (epsilon * x[0].numel()),
        "drift_bias": (total.mean(0).square().mean() / epsilon).sqrt(),
    }
    if hasattr(exact, "marginal"):
        half = torch.full_like(u, 0.5)
        x = process.bridge(pairs.start, pairs.end, half).sample()
        values["drift_error"] = _relative_error(drift_sum(drift, x, half), epsilon * _score(x, *exact.marginal(0.5)))
    return values


def drift_sum(drift: Drift, x: Float[Tensor, "n *event"], t: Float[Tensor, " n"]) -> Float[Tensor, "n *event"]:
    """The forward drift at (x, t) plus the backward drift at the same point, in its own clock 1 − t."""
    direction = torch.tensor([0, 1], device=x.device).repeat_interleave(len(x))
    forward, backward = drift(torch.cat([x, x]), torch.cat([t, 1 - t]), direction).chunk(2)
    return forward + backward


def translations(pairs: Pairs, direction: int) -> tuple[Tensor, Tensor]:
    """Translations of one direction and their sources: the pairs that train the other direction hold them."""
    rows = pairs.direction == 1 - direction
    return pairs.start[rows], pairs.end[rows]


def _score(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    return -torch.linalg.solve(covariance.to(x), (x - mean.to(x)).T).T


def _relative_error(found: Tensor, expected: Tensor) -> Tensor:
    return (found - expected).norm() / expected.norm()


def _spread(x: Tensor) -> Tensor:
    """E‖X − X′‖ over distinct rows."""
    return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))
