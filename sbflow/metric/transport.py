"""Transport cost of a translation, between its two yardsticks: random pairing and exact optimal transport.

All values are squared distances divided by the number of elements of a sample.
"""

from typing import NamedTuple

import numpy as np
import ot
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["MAX_POINTS", "PairCosts", "mean_squared_distance", "pair_costs"]

MAX_POINTS = 2000
"""The exact solver takes seconds and a 32 MB cost matrix at this size, and grows with its cube."""


class PairCosts(NamedTuple):
    """Costs of pairing two sets.

    Attributes:
        random: mean over all pairs, the cost of the independent coupling.
        optimal: cost of the exact optimal coupling of the two empirical measures.
    """

    random: float
    optimal: float


def mean_squared_distance(x: Float[Tensor, "n *event"], y: Float[Tensor, "n *event"]) -> float:
    """Mean over pairs (x_i, y_i) of the squared distance per element."""
    return (x.double() - y.double()).square().mean().item()


def pair_costs(x0: Float[Tensor, "n *event"], x1: Float[Tensor, "m *event"], *, seed: int = 0) -> PairCosts:
    """Cost of the independent and of the optimal coupling of two unpaired sets.

    Args:
        x0: samples of one end; of more than `MAX_POINTS` a random subset is taken.
        x1: samples of the other end, likewise.
        seed: seed of the subsets.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = (_subset(end, generator).flatten(1).double().cpu().numpy() for end in (x0, x1))
    cost = ot.dist(x, y, metric="sqeuclidean") / x.shape[1]
    uniform = [np.full(len(end), 1 / len(end)) for end in (x, y)]
    # the default limit of the network simplex, 1e5 pivots, is too low for 2000 points
    return PairCosts(float(cost.mean()), float(ot.emd2(*uniform, cost, numItermax=10_000_000)))


def _subset(x: Tensor, generator: torch.Generator) -> Tensor:
    return x if len(x) <= MAX_POINTS else x[torch.randperm(len(x), generator=generator)[:MAX_POINTS]]
