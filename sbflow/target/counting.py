"""Counts what a computation costs in evaluations of the target."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target

__all__ = ["CountingTarget"]


@dataclass
class _Tally:
    density: int = 0
    gradient: int = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Tally":
        """Stay one tally: a whitening may be fitted on a copy of the target, and its cost counts."""
        return self


class CountingTarget(Target):
    """The same density, with a count of its evaluations; one point counts as one evaluation.

    `log_prob` counts as density, `log_prob_and_score` and `score` as density and gradient. Backward passes that a
    caller makes through either (for a Hessian, say) are not seen. Copies share the count of their original.

    Args:
        target: the density to count.
    """

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target
        self.dim = target.dim
        self.log_normalizer = target.log_normalizer
        self.log_normalizer_stderr = target.log_normalizer_stderr
        self._tally = _Tally()

    @property
    def density_evaluations(self) -> int:
        """Points at which log γ was evaluated."""
        return self._tally.density

    @property
    def gradient_evaluations(self) -> int:
        """Points at which ∇ log γ was evaluated."""
        return self._tally.gradient

    def reset(self) -> None:
        """Set both counts to zero."""
        self._tally.density = self._tally.gradient = 0

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log γ(x) in nats."""
        self._tally.density += len(x)
        return self.target.log_prob(x)

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log γ(x) and ∇ log γ(x)."""
        self._tally.density += len(x)
        self._tally.gradient += len(x)
        return self.target.log_prob_and_score(x)

    def constrain(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Points in the space of the parameters."""
        return self.target.constrain(x)

    def parameters_by_name(self, x: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, "n *shape"]]:
        """The parameters at each point, by name."""
        return self.target.parameters_by_name(x)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Exact samples, where the target has them; not counted."""
        return self.target.sample(n, generator=generator)
