"""How particles are moved and resampled: the options of a run, validated once, and what a pilot run tunes."""

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.integrator import Coefficient
from sbflow.potential import NaivePotential
from sbflow.process import equalise, uniform_times
from sbflow.smc import (
    GuidedDenoising,
    Hmc,
    Ladder,
    Mala,
    Particles,
    Scheme,
    SMCPath,
    resampling_scheme,
    sample,
    tune,
)
from sbflow.smc.memory import check_chunk_size
from sbflow.smc.schedule import StepCost, TunedTimes, follow, tune_times
from sbflow.tensor import seeded_generator

__all__ = ["Moves", "ParticleScheme", "TimeGrid", "markov_moves"]

Moves = Literal["mala", "hmc"]
TimeGrid = Literal["uniform", "adaptive", "optimal", "online"]
Key = tuple[int, bool]
"""Number of steps, and whether for a trained potential."""

PILOT_PARTICLES = 500
# runs of that many particles
PILOT_RUNS = 2
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
        ladders: what pilot runs found.
        grids: what is known of the times of a ladder; None where they are even.
        online: the latest grid of training with ``time_grid="online"``, or None.

    Args:
        resampling: resampling scheme.
        ess_threshold: resample below this share of the particles; 0 never, 1 always.
        moves: Markov moves at every level, or None.
        time_grid: ``"uniform"``, even in the clock of the schedule; ``"adaptive"``, chosen by pilot runs so that every
            step costs the same spread of the weights; ``"optimal"``, the same by the path cost where the potential is a
            good one, trained or exact, and by pilot runs for the naive one; ``"online"``, even at first, and moved
            towards the grid of equal spread each time that training draws particles.
        time_rate: share of the way that ``"online"`` goes each time, in (0, 1].
        tempering: conditional effective sample size, as a share, between the exponents that temper the first weight,
            chosen by a pilot run; None does not temper.
        chunk_size: points per call of the density, or the memory of a call, as "500MB"; None for all at once.

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
        time_rate: float = 0.05,
        tempering: float | None = None,
        chunk_size: int | str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= ess_threshold <= 1:
            raise ValueError(f"ess_threshold must lie in [0, 1], got {ess_threshold}")
        if time_grid not in get_args(TimeGrid):
            raise ValueError(f"time_grid must be one of {', '.join(get_args(TimeGrid))}, got {time_grid!r}")
        if not 0 < time_rate <= 1:
            raise ValueError(f"time_rate must lie in (0, 1], got {time_rate}")
        if tempering is not None and not 0 < tempering < 1:
            raise ValueError(f"tempering must be null or lie in (0, 1), got {tempering}")
        if tempering is not None and moves is None:
            raise ValueError("tempering needs moves: without them the particles of all its levels are the same")
        check_chunk_size(chunk_size)
        self.options: dict[str, Any] = {
            "scheme": resampling_scheme(resampling),
            "ess_threshold": ess_threshold,
            "chunk_size": chunk_size,
        }
        self.moves = moves
        self.time_grid = time_grid
        self.time_rate = time_rate
        self.tempering = tempering
        self.ladders: dict[Key, Ladder] = {}
        self.grids: dict[Key, TunedTimes | None] = {}
        self.online: TunedTimes | None = None

    def prepare(self, key: Key, kernel: GuidedDenoising, like: Float[Tensor, "1 1 d"]) -> None:
        """Make the pilot runs and keep what they find, unless that was done for a kernel of the same coefficient."""
        if key in self.ladders:
            grid = self.grids[key]
            if grid is None or grid.coefficient == kernel.coefficient:
                # from a checkpoint they come on the CPU
                ladder = self.ladders[key]
                self.ladders[key] = ladder._replace(times=ladder.times.to(like.device))
                return
        self.ladders[key], self.grids[key] = self.tuned(kernel, like, key[0])

    def predicted_variance(self, key: Key) -> float:
        """Sum of the variances of the incremental log-weights that the grid promises; NaN of an even one."""
        grid = self.grids[key]
        return math.nan if grid is None else grid.predicted_variance

    def forget_trained(self) -> None:
        """Drop what was tuned for a potential that another one takes the place of."""
        self.ladders = {key: ladder for key, ladder in self.ladders.items() if not key[1]}
        self.grids = {key: grid for key, grid in self.grids.items() if not key[1]}

    def tuned(
        self, kernel: GuidedDenoising, like: Float[Tensor, "1 1 d"], num_steps: int
    ) -> tuple[Ladder, TunedTimes | None]:
        """Times, exponents and step sizes for a kernel, by pilot runs where they are needed.

        Args:
            kernel: moves between times.
            like: gives dimension, dtype and device.
            num_steps: steps in time.

        Returns:
            What to run on, and what is known of its times; None where they are even.
        """
        # apart from every seed of a reported run, whose Ẑ a grid that was chosen on its own draws would bias
        generator = seeded_generator(num_steps, LADDER_STREAM, device=like.device)
        pilot = like.expand(PILOT_RUNS, PILOT_PARTICLES, -1)
        grid = self._grid(kernel, pilot, num_steps, generator)
        times = uniform_times(num_steps, device=like.device).flip(0) if grid is None else grid.times.to(like.device)
        if self.moves is None:
            return Ladder(times, None, None), grid
        ladder = tune(
            kernel,
            pilot[:1],
            times,
            moves=self.moves,
            conditional_ess=self.tempering,
            generator=generator,
            **self.options,
        )
        return ladder, grid

    def _grid(
        self, kernel: GuidedDenoising, pilot: Float[Tensor, "r n d"], num_steps: int, generator: torch.Generator
    ) -> TunedTimes | None:
        if self.time_grid == "uniform":
            return None
        if self.time_grid == "online":
            return None if self.online is None else _resized(self.online, num_steps)
        naive = isinstance(kernel.potential, NaivePotential)
        cost: StepCost = "pilot" if self.time_grid == "adaptive" or naive else "path"
        return tune_times(kernel, pilot, num_steps, cost=cost, generator=generator, **self.options)

    def follow(self, key: Key, path: SMCPath, num_particles: int, coefficient: Coefficient) -> None:
        """Learn from a run of training; the next one goes on the grid that comes out (``time_grid="online"``).

        Args:
            key: what the run was made with.
            path: its diagnostics.
            num_particles: its particles.
            coefficient: of its kernel.
        """
        times = self.ladders[key].times
        self.online = self.grids[key] = follow(times, path, self.time_rate, num_particles, coefficient)
        self.ladders[key] = self.ladders[key]._replace(times=self.online.times)

    def run(
        self, kernel: GuidedDenoising, like: Float[Tensor, "r n d"], ladder: Ladder, generator: torch.Generator
    ) -> tuple[Particles, SMCPath]:
        """Run on a frozen ladder, so that Ẑ is unbiased."""
        return sample(kernel, like, **ladder._asdict(), moves=self.moves, generator=generator, **self.options)

    def get_extra_state(self) -> dict[str, Any]:
        """What was tuned, as plain data."""
        return {
            "ladders": {key: tuple(ladder) for key, ladder in self.ladders.items()},
            "grids": {key: grid and tuple(grid) for key, grid in self.grids.items()},
            "online": self.online and tuple(self.online),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take what was tuned from a checkpoint; one of an earlier version knows only the ladders."""
        self.ladders = {key: Ladder(*parts) for key, parts in state["ladders"].items()}
        known = state.get("grids", dict.fromkeys(self.ladders))
        self.grids = {key: parts and TunedTimes(*parts) for key, parts in known.items()}
        online = state.get("online")
        self.online = online and TunedTimes(*online)


def _resized(grid: TunedTimes, num_steps: int) -> TunedTimes:
    """The same grid in another number of steps."""
    old = len(grid.times) - 1
    times = equalise(grid.times.flip(0), torch.ones(old, dtype=torch.float64, device=grid.times.device), num_steps)
    return grid._replace(times=times.flip(0), predicted_variance=grid.predicted_variance * old / num_steps)
