"""How particles are moved and resampled: the options of a run, validated once, and what a pilot run tunes."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.process import uniform_times
from sbflow.smc import (
    GuidedDenoising,
    Hmc,
    Ladder,
    Mala,
    Particles,
    Scheme,
    SMCPath,
    adaptive_times,
    resampling_scheme,
    sample,
    tune,
)

__all__ = ["Moves", "ParticleScheme", "TimeGrid", "markov_moves"]

Moves = Literal["mala", "hmc"]
TimeGrid = Literal["uniform", "adaptive"]
PILOT_PARTICLES = 500
# last key of the random streams of pilot runs
LADDER_STREAM = 4


def markov_moves(moves: Moves | Hmc | None, *, num_moves: int = 1, waste_free: bool = False) -> Hmc | None:
    """Markov moves by name.

    Args:
        moves: ``"mala"``, ``"hmc"``, moves made elsewhere, or None for none.
        num_moves: moves at every level.
        waste_free: keep every state of the chains, see `sbflow.smc.Hmc`.

    Raises:
        ValueError: an unknown name, or options of moves where there are none.
    """
    if isinstance(moves, Hmc):
        return moves
    if moves is None:
        if waste_free or num_moves != 1:
            raise ValueError(f"num_moves={num_moves} and waste_free={waste_free} need moves='mala' or moves='hmc'")
        return None
    kinds = {"mala": Mala, "hmc": Hmc}
    if moves not in kinds:
        raise ValueError(f"moves must be 'mala', 'hmc' or null, got {moves!r}")
    return kinds[moves](num_moves=num_moves, waste_free=waste_free)


class ParticleScheme(nn.Module):
    """Options of a run of the Particle Denoising Diffusion Sampler, and what pilot runs tuned of them.

    A module without weights: what was tuned goes into checkpoints with the weights of the sampler.

    Attributes:
        ladders: what pilot runs found, by number of steps and whether for a trained potential.

    Args:
        resampling: resampling scheme.
        ess_threshold: resample below this share of the particles; 0 never, 1 always.
        moves: Markov moves at every level, or None.
        time_grid: ``"uniform"``, or ``"adaptive"``: chosen by a pilot run so that every step costs the same spread of
            the weights.
        tempering: conditional effective sample size, as a share, between the exponents that temper the first weight,
            chosen by a pilot run; None does not temper.
        chunk_size: points per call of the density; None for all at once.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        resampling: Scheme = "systematic",
        ess_threshold: float = 0.3,
        moves: Hmc | None = None,
        time_grid: TimeGrid = "uniform",
        tempering: float | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= ess_threshold <= 1:
            raise ValueError(f"ess_threshold must lie in [0, 1], got {ess_threshold}")
        if time_grid not in get_args(TimeGrid):
            raise ValueError(f"time_grid must be one of {', '.join(get_args(TimeGrid))}, got {time_grid!r}")
        if tempering is not None and not 0 < tempering < 1:
            raise ValueError(f"tempering must be null or lie in (0, 1), got {tempering}")
        if tempering is not None and moves is None:
            raise ValueError("tempering needs moves: without them the particles of all its levels are the same")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size must be null or at least 1, got {chunk_size}")
        self.options: dict[str, Any] = {
            "scheme": resampling_scheme(resampling),
            "ess_threshold": ess_threshold,
            "chunk_size": chunk_size,
        }
        self.moves = moves
        self.time_grid = time_grid
        self.tempering = tempering
        self.ladders: dict[tuple[int, bool], Ladder] = {}

    def tuned(
        self, kernel: GuidedDenoising, like: Float[Tensor, "1 1 d"], num_steps: int, generator: torch.Generator
    ) -> Ladder:
        """Times, exponents and step sizes for a kernel, by a pilot run where one is needed.

        Args:
            kernel: moves between times.
            like: gives dimension, dtype and device.
            num_steps: steps in time.
            generator: source of the pilot's randomness, which no reported run may share.
        """
        pilot = like.expand(1, PILOT_PARTICLES, -1)
        times = uniform_times(num_steps, device=like.device).flip(0)
        if self.time_grid == "adaptive":
            times = adaptive_times(kernel, pilot, num_steps, generator=generator, **self.options)
        if self.moves is None:
            return Ladder(times, None, None)
        return tune(
            kernel,
            pilot,
            times,
            moves=self.moves,
            conditional_ess=self.tempering,
            generator=generator,
            **self.options,
        )

    def run(
        self, kernel: GuidedDenoising, like: Float[Tensor, "r n d"], ladder: Ladder, generator: torch.Generator
    ) -> tuple[Particles, SMCPath]:
        """Run on a frozen ladder, so that Ẑ is unbiased."""
        return sample(kernel, like, **ladder._asdict(), moves=self.moves, generator=generator, **self.options)

    def get_extra_state(self) -> dict[str, Any]:
        """What was tuned, as plain data."""
        return {"ladders": {key: tuple(ladder) for key, ladder in self.ladders.items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take what was tuned from a checkpoint."""
        self.ladders = {key: Ladder(*parts) for key, parts in state["ladders"].items()}
