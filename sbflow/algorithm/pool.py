"""Particles that a potential is fitted to, and the losses of that fit."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.loss import (
    ScoreMatching,
    denoising_score_matching,
    fisher_score_matching,
    novel_score_matching,
    stratified_times,
    target_score_matching,
)
from sbflow.potential import Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import Particles, systematic

__all__ = ["LossName", "Pool", "score_matching"]

LossName = Literal["novel", "denoising", "target", "fisher"]
EARLIEST_TIME = 1e-3


def score_matching(loss: LossName | ScoreMatching) -> ScoreMatching:
    """Loss by name; a function is handed back.

    Raises:
        ValueError: an unknown name.
    """
    if not isinstance(loss, str):
        return loss
    named: dict[str, ScoreMatching] = {
        "novel": novel_score_matching,
        "denoising": denoising_score_matching,
        "target": target_score_matching,
        "fisher": fisher_score_matching,
    }
    if loss not in named:
        raise ValueError(f"loss must be one of {', '.join(named)} or a function, got {loss!r}")
    return named[loss]


class Pool(NamedTuple):
    """Equally weighted particles of the target.

    Attributes:
        x: positions in whitened coordinates ``[n, d]``.
        grad_log_g: gradient of log g_0 there ``[n, d]``.
    """

    x: Float[Tensor, "n d"]
    grad_log_g: Float[Tensor, "n d"]

    @classmethod
    def of(cls, particles: Particles, generator: torch.Generator) -> "Pool":
        """Resample the first set of a finished run to equal weights."""
        chosen = systematic(particles.log_weights, generator)[0]
        return cls(particles.x[0, chosen], particles.field.grad_log_g[0, chosen])

    def loss(
        self,
        matching: ScoreMatching,
        potential: Potential,
        process: OrnsteinUhlenbeck,
        batch_size: int,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Loss of a potential on a random batch at stratified times.

        Args:
            matching: the loss.
            potential: what is fitted.
            process: noising process.
            batch_size: particles of the batch, drawn with replacement.
            generator: source of all randomness.
        """
        chosen = torch.randint(len(self.x), (batch_size,), device=self.x.device, generator=generator)
        t = stratified_times(batch_size, EARLIEST_TIME, 1.0, like=self.x, generator=generator)
        return matching(potential, process, self.x[chosen], self.grad_log_g[chosen], t, generator=generator)
