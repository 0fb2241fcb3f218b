"""A user's own log density as a target."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target

__all__ = ["CallableTarget", "LogDensity"]

LogDensity = Callable[[Tensor], Tensor]
"""Maps points ``[n, d]`` to log densities ``[n]``, each from its own point alone."""


class CallableTarget(Target):
    """Density given by any function of a batch of points; its score comes from automatic differentiation.

    A module given as the function becomes a submodule and moves with the target.

    Args:
        log_prob: maps points ``[n, d]`` to unnormalised log densities ``[n]``, differentiably.
        dim: dimension d, at least 1.
        dtype: dtype that the function takes, where it takes only one (its data are in float64, say); points are cast
            to it. None hands the points on as they are.

    Raises:
        ValueError: ``log_prob`` cannot be called or ``dim`` is below 1.

    >>> import torch
    >>> CallableTarget(lambda x: -x.square().sum(1), dim=2).score(torch.ones(1, 2))
    tensor([[-2., -2.]])
    """

    def __init__(self, log_prob: LogDensity, dim: int, *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if not callable(log_prob):
            raise ValueError(f"log_prob must be callable, got {log_prob!r}")
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.dim = dim
        self.function = log_prob
        self.dtype = dtype

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log γ(x) in nats, in the dtype of x.

        Raises:
            ValueError: the function did not return one value per point.
        """
        log_prob = self.function(x if self.dtype is None else x.to(self.dtype))
        if not isinstance(log_prob, Tensor) or log_prob.shape != x.shape[:1]:
            got = list(log_prob.shape) if isinstance(log_prob, Tensor) else type(log_prob).__name__
            raise ValueError(
                f"log_prob must return a tensor of shape {[len(x)]} for points of shape {list(x.shape)}, got {got}"
            )
        return log_prob.to(x.dtype)
