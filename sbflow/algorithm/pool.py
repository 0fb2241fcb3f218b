"""Particles that a potential is fitted to, and the losses of that fit."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.loss import Mixing, MixingName, ScoreMatching, named_mixing, stratified_times
from sbflow.potential import Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import Particles, systematic

__all__ = ["LossName", "Pool", "score_matching"]

LossName = MixingName
EARLIEST_TIME = 1e-3


def score_matching(loss: LossName | ScoreMatching) -> ScoreMatching:
    """Loss by name; a mixing or a function is handed back.

    Raises:
        ValueError: an unknown name.
    """
    return named_mixing(loss) if isinstance(loss, str) else loss


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

    def to(self, device: torch.device) -> "Pool":
        """Move it."""
        return Pool(*(part.to(device) for part in self))

    def seen_by(self, matching: ScoreMatching) -> "Pool":
        """Let a mixing take note of the scores that its batches will come from; hand the pool back."""
        if isinstance(matching, Mixing):
            matching.update(self.score)
        return self

    @property
    def score(self) -> Float[Tensor, "n d"]:
        """∇ log π of each particle."""
        return self.grad_log_g - self.x

    def batch(
        self, size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"], Float[Tensor, " m"]]:
        """Positions and gradients of random particles, drawn with replacement, and stratified times."""
        chosen = torch.randint(len(self.x), (size,), device=self.x.device, generator=generator)
        t = stratified_times(size, EARLIEST_TIME, 1.0, like=self.x, generator=generator)
        return self.x[chosen], self.grad_log_g[chosen], t

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
        x0, grad_log_g0, t = self.batch(batch_size, generator)
        return matching(potential, process, x0, grad_log_g0, t, generator=generator)
