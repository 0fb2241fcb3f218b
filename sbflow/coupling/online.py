"""Pairs that the current network simulates afresh at every step: α-DSBM."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.coupling.base import Coupling
from sbflow.coupling.rollout import Rollout
from sbflow.loss import Pairs, bidirectional_pairs

__all__ = ["Online", "simulated_pairs"]


class Online(Coupling):
    """Forward pairs (x̂0, x1) with x̂0 made backwards from real x1, backward pairs (x̂1, x0) likewise.

    References:
        De Bortoli, Korshunova, Mnih, Doucet, "Schrödinger Bridge Flow for Unpaired Data Translation", 2024.
    """

    simulates = True

    def pairs(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "m *event"], rollout: Rollout, step: int) -> Pairs:
        """Pairs of both directions, from one batch of rollouts."""
        return simulated_pairs(x0, x1, rollout)


def simulated_pairs(x0: Tensor, x1: Tensor, rollout: Rollout) -> Pairs:
    """Roll x0 forwards and x1 backwards in one batch; each real sample becomes the end of its own rollout's pair."""
    direction = torch.zeros(len(x0) + len(x1), dtype=torch.long, device=x0.device)
    direction[len(x0) :] = 1
    x1_hat, x0_hat = rollout(torch.cat([x0, x1]), direction).split([len(x0), len(x1)])
    return bidirectional_pairs((x0_hat, x1), (x1_hat, x0))
