"""Pairs of the reference process: where iterative proportional fitting starts."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.coupling.base import Coupling
from sbflow.coupling.rollout import Rollout
from sbflow.loss import Pairs

__all__ = ["Reference"]


class Reference(Coupling):
    """x1 simulated from x0 by Brownian motion; trains the backward drift alone, towards the real x0.

    Followed by `Iterative`, which trains the forward drift first, this is the initialisation by iterative
    proportional fitting of Shi et al. 2023 (DSBM-IPF).
    """

    bidirectional = False

    def pairs(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "m *event"], rollout: Rollout, step: int) -> Pairs:
        """Backward pairs (x0 + √ε Z, x0)."""
        start = x0 + rollout.process.epsilon**0.5 * torch.randn_like(x0)
        return Pairs(start, x0, torch.ones(len(x0), dtype=torch.long, device=x0.device))
