r"""Bridge matching: regression of a drift on Brownian bridges between given pairs.

Own clock: a direction's time u runs from 0 at its start to 1 at its end, so that both directions are one formula,

.. math:: X_u = (1-u) x_s + u x_e + \sqrt{\epsilon u (1-u)} Z, \qquad v^\star(u, X_u) = (x_e - X_u) / (1 - u).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sbflow.loss.end_scores import EndScores
from sbflow.process import ReferenceProcess
from sbflow.target import Target
from sbflow.tensor import expand_to

__all__ = ["Pairs", "bidirectional_pairs", "bridge_matching", "stratified_times"]

DriftNetwork = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x ``[n, *event]``, u ``[n]``, direction ``[n]``) -> drift ``[n, *event]``."""


TimeWeight = Callable[[Tensor], Tensor]
"""(u ``[n]``) -> weight, ``[n]`` or with further axes that broadcast against the event."""


class Pairs(NamedTuple):
    """Start and end points of bridges, each with its direction.

    Attributes:
        start: own-clock start ``[n, *event]``.
        end: own-clock end ``[n, *event]``, the regression target: always real data.
        direction: 0 forward (from π₀ to π₁), 1 backward ``[n]``.
    """

    start: Float[Tensor, "n *event"]
    end: Float[Tensor, "n *event"]
    direction: Int[Tensor, " n"]


def bidirectional_pairs(
    forward: tuple[Float[Tensor, "m *event"], Float[Tensor, "m *event"]],
    backward: tuple[Float[Tensor, "k *event"], Float[Tensor, "k *event"]],
) -> Pairs:
    """Stack forward pairs (x0, x1) and backward pairs (x1, x0), each given as (start, end)."""
    start = torch.cat([forward[0], backward[0]])
    direction = torch.zeros(len(start), dtype=torch.long, device=start.device)
    direction[len(forward[0]) :] = 1
    return Pairs(start, torch.cat([forward[1], backward[1]]), direction)


def stratified_times(
    n: int, low: float, high: float, *, like: Tensor, generator: torch.Generator | None = None
) -> Float[Tensor, " n"]:
    """Draw n uniform times on [low, high], one in each of n equal strata, in random order.

    Args:
        n: number of times.
        low: lower end.
        high: upper end.
        like: gives dtype and device.
        generator: source of the randomness.
    """
    device = like.device if generator is None else generator.device
    u = torch.rand(n, device=device, dtype=like.dtype, generator=generator)
    strata = torch.randperm(n, device=device, generator=generator)
    return (low + (high - low) * (strata + u) / n).to(like.device)


def bridge_matching(
    drift: DriftNetwork,
    process: ReferenceProcess,
    pairs: Pairs,
    *,
    weight: TimeWeight = torch.ones_like,
    cutoff: float = 1e-3,
    end_scores: EndScores | Sequence[Target | None] = (None, None),
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Weighted mean squared error of the drift against that of the bridges, over pairs and elements.

    Args:
        drift: network bound to nothing, called with (x, u, direction).
        process: reference process, the same read from either end (`sbflow.process.Brownian`).
        pairs: start and end points.
        weight: weight of the squared error at each time, ``[n]`` or broadcastable to ``[n, *event]``; any positive
            function has the same minimiser. Towards a known density all times have that of time 0, as none is then
            much noisier than another.
        cutoff: times are drawn on [cutoff, 1 − cutoff], as the target is singular at 1.
        end_scores: densities of π₀ and π₁ as far as they are known, for labels of less variance, see
            `sbflow.loss.end_scores`; right for *independent* pairs alone: the drift of any other coupling would be
            missed in silence.
        generator: source of the noise.

    References:
        Shi, De Bortoli, Campbell, Doucet 2023 (DSBM); De Bortoli et al. 2024 (Schrödinger Bridge Flow).
    """
    u = stratified_times(len(pairs.start), cutoff, 1 - cutoff, like=pairs.start, generator=generator)
    law = process.bridge(pairs.start, pairs.end, u)
    x = law.sample(generator)
    scores = end_scores if isinstance(end_scores, EndScores) else EndScores(end_scores)
    if scores:
        target = scores.label(*pairs, u, x - law.mean, process.diffusion(u) ** 2)
    else:
        target = process.drift_to_end(x, pairs.end, u)
    error = drift(x, u, pairs.direction) - target
    weights = weight(torch.where(scores.bounded(pairs.direction), 0, u))
    return (expand_to(weights, error) * error**2).mean()
