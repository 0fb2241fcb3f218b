"""A target in whitened coordinates."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.whitening.affine import Affine

__all__ = ["Whitened"]


class Whitened(Target):
    """The density of z under x = m + L z, log γ(m + L z) + log |det L|; log Z is that of the original.

    Args:
        target: density in the original coordinates x.
        affine: the change of variables.

    Raises:
        ValueError: the dimensions of target and change of variables differ.
    """

    def __init__(self, target: Target, affine: Affine) -> None:
        super().__init__()
        if affine.dim != target.dim:
            raise ValueError(f"affine must have the dimension of the target, {target.dim}, got {affine.dim}")
        self.target = target
        self.affine = affine
        self.dim = target.dim
        self.log_normalizer = target.log_normalizer

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log density at the whitened points ``x``, unnormalised, in nats."""
        return self.target.log_prob(self.affine(x)) + self.affine.log_det.to(x.dtype)

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log density at the whitened points ``x`` and its gradient there."""
        log_prob, score = self.target.log_prob_and_score(self.affine(x))
        return log_prob + self.affine.log_det.to(x.dtype), self.affine.pull_back(score)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Exact samples in whitened coordinates, where the target has exact samples."""
        return self.affine.inverse(self.target.sample(n, generator=generator))
