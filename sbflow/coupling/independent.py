"""Pairs of independent samples: bridge matching."""

from jaxtyping import Float
from torch import Tensor

from sbflow.coupling.base import Coupling
from sbflow.coupling.rollout import Rollout
from sbflow.loss import Pairs, bidirectional_pairs

__all__ = ["Independent", "halves"]


class Independent(Coupling):
    """x0 and x1 as they come; one half of the batch trains each direction."""

    def pairs(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "n *event"], rollout: Rollout, step: int) -> Pairs:
        """Rows of the two batches side by side."""
        return halves(x0, x1)


def halves(x0: Tensor, x1: Tensor) -> Pairs:
    """The first half of coupled rows as forward pairs, the second as backward ones."""
    half = len(x0) // 2 or 1
    return bidirectional_pairs((x0[:half], x1[:half]), (x1[half:], x0[half:]))
