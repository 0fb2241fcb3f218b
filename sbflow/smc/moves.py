r"""Markov moves that leave the law of the particles at one level as it is.

At a level the particles follow :math:`\hat g^e N(0, I)`, with an exponent e that is below 1 while the first weight is
tempered. A move draws a velocity, follows Hamiltonian dynamics for a few steps and accepts the end by Metropolis.
The Gaussian part of the dynamics is solved exactly, as a rotation of position and velocity, and the potential kicks the
velocity in between: where the whitening is good the potential is flat, and long steps are accepted in any dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sbflow.smc.particles import Field
from sbflow.tensor import randn_like

__all__ = ["Hmc", "Mala"]

LONGEST_ANGLE = 0.5 * torch.pi
"""Rotation of a whole trajectory after which, under the Gaussian alone, nothing is left of where it began."""


class Moved(NamedTuple):
    """Outcome of one move.

    Attributes:
        x: positions ``[r, n, d]``.
        field: potential there.
        chance: probability of acceptance ``[r, n]``, 0 outside the support.
        num_nan: proposals at which density or gradient were not a number ``[r]``.
    """

    x: Float[Tensor, "r n d"]
    field: Field
    chance: Float[Tensor, "r n"]
    num_nan: Int[Tensor, " r"]


@dataclass(frozen=True)
class Hmc:
    """Hamiltonian Monte Carlo; a move costs ``num_leapfrog`` evaluations of density and gradient per particle.

    Each particle's step is the level's step size times a factor drawn between 0.8 and 1.2, so that no trajectory is in
    tune with the period of a mode.

    Args:
        num_leapfrog: steps of a trajectory, at least 1.
        num_moves: moves at every level, at least 1.
        target_acceptance: mean acceptance that the step size is tuned to, in (0, 1).
        waste_free: resample only n / (num_moves + 1) ancestors and keep every state of their chains of moves.

    References:
        Neal, "MCMC using Hamiltonian dynamics", 2011.
        Beskos, Pinski, Sanz-Serna, Stuart, "Hybrid Monte Carlo on Hilbert spaces", 2011.
        Dau & Chopin, "Waste-free sequential Monte Carlo", 2022.
    """

    num_leapfrog: int = 10
    num_moves: int = 1
    target_acceptance: float = 0.65
    waste_free: bool = False

    def __post_init__(self) -> None:
        for name, value in (("num_leapfrog", self.num_leapfrog), ("num_moves", self.num_moves)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < self.target_acceptance < 1:
            raise ValueError(f"target_acceptance must lie in (0, 1), got {self.target_acceptance}")

    @property
    def longest_step(self) -> float:
        """Step size beyond which a longer step gains nothing."""
        return LONGEST_ANGLE / self.num_leapfrog

    def move(
        self,
        evaluate: Callable[[Tensor], Field],
        x: Float[Tensor, "r n d"],
        field: Field,
        exponent: float,
        step_size: float,
        generator: torch.Generator | None = None,
    ) -> Moved:
        """Move every particle once.

        A particle outside the support stays, and none goes there: the move is sound whatever value stands in for the
        density outside.

        Args:
            evaluate: potential at positions ``[r, n, d]``.
            x: positions.
            field: potential there; its values are reused.
            exponent: of the potential.
            step_size: angle of the Gaussian rotation per step.
            generator: source of all randomness.
        """
        v = randn_like(x, generator)
        uniforms = _uniforms(x, generator)
        angle = (step_size * (0.8 + 0.4 * uniforms[0])).to(x.dtype)[..., None]
        y, end_v, end = self._trajectory(evaluate, x, v, field, exponent, angle)
        gain = exponent * (end.log_g.double() - field.log_g.double()) + _kinetic(x, v) - _kinetic(y, end_v)
        # an overflow is no number: such an end is refused
        chance = torch.where(field.inside & end.inside, gain.nan_to_num(-torch.inf).clamp(max=0).exp(), 0.0)
        return Moved(
            *_select(uniforms[1] < chance, (y, end), (x, field)),
            chance,
            end.nan.sum(-1),
        )

    def _trajectory(
        self,
        evaluate: Callable[[Tensor], Field],
        x: Tensor,
        v: Tensor,
        field: Field,
        exponent: float,
        angle: Tensor,
    ) -> tuple[Tensor, Tensor, Field]:
        """Kick by half a step, rotate, kick by half a step; as often as there are steps."""
        cos, sin, kick = angle.cos(), angle.sin(), 0.5 * angle * exponent
        for _ in range(self.num_leapfrog):
            v = v + kick * field.grad_log_g
            x, v = cos * x + sin * v, cos * v - sin * x
            field = evaluate(x)
            v = v + kick * field.grad_log_g
        return x, v, field


@dataclass(frozen=True)
class Mala(Hmc):
    """Metropolis-adjusted Langevin: Hamiltonian Monte Carlo of one step, one evaluation per particle and move.

    The Gaussian part of the drift is solved exactly, as throughout this module.

    Args:
        num_leapfrog: see `Hmc`.
        num_moves: see `Hmc`.
        target_acceptance: see `Hmc`.
        waste_free: see `Hmc`.
    """

    num_leapfrog: int = 1
    target_acceptance: float = 0.574


def _kinetic(x: Float[Tensor, "r n d"], v: Float[Tensor, "r n d"]) -> Float[Tensor, "r n"]:
    """Half the squared norm of position and velocity, which rotations conserve."""
    return 0.5 * (x.double().square().sum(-1) + v.double().square().sum(-1))


def _uniforms(x: Float[Tensor, "r n d"], generator: torch.Generator | None) -> Float[Tensor, "2 r n"]:
    device = x.device if generator is None else generator.device
    return torch.rand(2, *x.shape[:2], dtype=torch.float64, device=device, generator=generator).to(x.device)


def _select(
    accepted: Bool[Tensor, "r n"], new: tuple[Tensor, Field], old: tuple[Tensor, Field]
) -> tuple[Tensor, Field]:
    """The new state where accepted, else the old one."""
    (y, end), (x, field) = new, old
    parts = (
        torch.where(accepted.reshape(accepted.shape + (1,) * (a.ndim - 2)), a, b)
        for a, b in zip(end, field, strict=True)
    )
    return torch.where(accepted[..., None], y, x), Field(*parts)
