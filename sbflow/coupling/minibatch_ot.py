"""Pairs matched by optimal transport within each batch."""

from typing import Literal

import numpy as np
import ot
import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.coupling.base import Coupling
from sbflow.coupling.independent import halves
from sbflow.coupling.rollout import Rollout
from sbflow.loss import Pairs

__all__ = ["MinibatchOT"]


class MinibatchOT(Coupling):
    """Rows of the two batches matched by an optimal plan; one half of the matched rows trains each direction.

    A batch is a small sample of either end, so that the coupling is biased towards the independent one, the more the
    higher the dimension: a cheap start, not the bridge.

    Args:
        method: ``"exact"`` is the best permutation for the squared distance; ``"sinkhorn"`` draws partners from the
            entropic plan.
        regularisation: entropy of the Sinkhorn plan for the cost ‖x0 − x1‖²; by default 2ε, of which the plan of the
            full sets is the Schrödinger coupling.
        max_iterations: of Sinkhorn.

    References:
        Tong, Fatras, Malkin et al., "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
        Transport", 2024.
    """

    def __init__(
        self,
        *,
        method: Literal["exact", "sinkhorn"] = "exact",
        regularisation: float | None = None,
        max_iterations: int = 1000,
    ) -> None:
        if method not in ("exact", "sinkhorn"):
            raise ValueError(f"method must be 'exact' or 'sinkhorn', got {method!r}")
        if regularisation is not None and not 0 < regularisation < float("inf"):
            raise ValueError(f"regularisation must be positive and finite, got {regularisation}")
        if regularisation is not None and method == "exact":
            raise ValueError("regularisation is an option of method='sinkhorn', got method='exact'")
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
        self.method = method
        self.regularisation = regularisation
        self.max_iterations = max_iterations

    def pairs(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "n *event"], rollout: Rollout, step: int) -> Pairs:
        """Match x1 to x0 and halve."""
        # the solvers run on the CPU, in double precision
        points = [x.flatten(1).double().cpu() for x in (x0, x1)]
        cost = torch.cdist(*points, compute_mode="donot_use_mm_for_euclid_dist").square()
        partner = self._exact(cost) if self.method == "exact" else self._sinkhorn(cost, rollout.process.epsilon)
        return halves(x0, x1[partner.to(x1.device)])

    def _exact(self, cost: Tensor) -> Tensor:
        plan = ot.emd(*_uniform(cost), cost.numpy(), numItermax=10_000_000)
        return torch.from_numpy(plan.argmax(1))

    def _sinkhorn(self, cost: Tensor, epsilon: float) -> Tensor:
        reg = 2 * epsilon if self.regularisation is None else self.regularisation
        # in the log domain: distances between images are hundreds of times ε
        plan = ot.sinkhorn(
            *_uniform(cost), cost.numpy(), reg, method="sinkhorn_log", numItermax=self.max_iterations, warn=False
        )
        return torch.multinomial(torch.from_numpy(plan), 1).squeeze(1)


def _uniform(cost: Tensor) -> tuple[np.ndarray, np.ndarray]:
    n, m = cost.shape
    return np.full(n, 1 / n), np.full(m, 1 / m)
