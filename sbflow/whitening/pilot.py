"""Moments of a pilot run as reference law."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.whitening.affine import Affine
from sbflow.whitening.base import Whitening, check_inflation

__all__ = ["Pilot"]


class Pilot(Whitening):
    """Gaussian with the mean and covariance of a first run of the sampler; for targets whose modes mislead.

    `fit` gives the law that the pilot run starts from, `refit` what was learned from it. Unlike a fit by reverse
    Kullback–Leibler divergence, which settles on one mode, moments cover all that the pilot run found.

    Args:
        start: reference law of the pilot run itself, wide enough to cover the target.
        diagonal: fit standard deviations alone, where the particles are too few for correlations.
        inflation: factor on the standard deviations; above 1 covers tails heavier than the Gaussian's.

    Raises:
        ValueError: ``inflation`` is not positive and finite.
    """

    def __init__(self, start: Whitening, *, diagonal: bool = False, inflation: float = 1.0) -> None:
        check_inflation(inflation)
        self.start = start
        self.diagonal = diagonal
        self.inflation = inflation

    def fit(self, target: Target) -> Affine:
        """Choose the law of the pilot run."""
        return self.start.fit(target)

    def refit(self, samples: Float[Tensor, "n d"], log_weights: Float[Tensor, " n"]) -> Affine:
        """Take the moments of the pilot run.

        Args:
            samples: its particles, in the target's own coordinates.
            log_weights: their log-weights, normalised or not.

        Raises:
            ValueError: too few particles have weight for a covariance.
        """
        return Affine.from_samples(samples, log_weights, diagonal=self.diagonal, inflation=self.inflation)

    def empty(self, dim: int) -> Affine:
        """Return the identity, in the shape of `refit`'s result."""
        scale = torch.ones(dim, dtype=torch.float64)
        return Affine(torch.zeros_like(scale), scale if self.diagonal else scale.diag())
