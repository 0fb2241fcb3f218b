"""Annealed sequential Monte Carlo: the baseline that a learned sampler should be compared with."""

from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.algorithm.evidence_sampler import Draw, EvidenceSampler, check_count
from sbflow.algorithm.particle_scheme import LADDER_STREAM, PILOT_PARTICLES, Moves, markov_moves
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import GuidedDenoising, Hmc, Ladder, Scheme, resampling_scheme
from sbflow.smc.annealed import annealing_ladder
from sbflow.smc.engine import Engine
from sbflow.smc.sampler import climb
from sbflow.target import Target
from sbflow.tensor import seeded_generator
from sbflow.whitening import Whitening

__all__ = ["AnnealedSMC"]

LEAST_PILOT = 100


class AnnealedSMC(EvidenceSampler):
    """Follows the geometric path from the whitening's Gaussian to the target by Markov moves; nothing is trained.

    Temperatures and step sizes are chosen by a pilot run and then frozen, so that Ẑ is unbiased.

    Args:
        target: the density.
        whitening: rule that chooses the Gaussian to start from.
        num_steps: temperatures; None takes as many as the pilot run finds to be needed.
        num_particles: particles of a run.
        moves: Markov moves at every temperature, ``"hmc"``, ``"mala"`` or made elsewhere.
        num_moves: moves per temperature, where they are given by name.
        waste_free: keep every state of the chains of moves, where they are given by name; ``num_particles`` must be a
            multiple of ``num_moves`` + 1.
        ess_threshold: resample below this share of the particles; 0 never, 1 always.
        resampling: resampling scheme.
        chunk_size: points per call of the density, or the memory of a call, as "500MB"; None for all at once.
        num_probes: points of a round of the look at what the runs may have missed, see `EvidenceSampler`; 0 for none.

    Raises:
        ValueError: an option out of range.

    References:
        Del Moral, Doucet, Jasra, "Sequential Monte Carlo samplers", 2006.
    """

    def __init__(
        self,
        target: Target,
        whitening: Whitening,
        *,
        num_steps: int | None = None,
        num_particles: int = 2000,
        moves: Moves | Hmc = "hmc",
        num_moves: int = 1,
        waste_free: bool = False,
        ess_threshold: float = 0.5,
        resampling: Scheme = "systematic",
        chunk_size: int | str | None = None,
        num_probes: int = 1300,
    ) -> None:
        super().__init__(target, whitening, num_particles, chunk_size, num_probes)
        if num_steps is not None:
            check_count("num_steps", num_steps, 1)
        if not 0 <= ess_threshold <= 1:
            raise ValueError(f"ess_threshold must lie in [0, 1], got {ess_threshold}")
        self.num_steps = num_steps
        self.options: dict[str, Any] = {
            "moves": markov_moves(moves, num_moves=num_moves, waste_free=waste_free),
            "scheme": resampling_scheme(resampling),
            "ess_threshold": ess_threshold,
            "chunk_size": chunk_size,
        }
        # what pilot runs found, by number of steps
        self.ladders: dict[int | None, Ladder] = {}

    @property
    def max_steps(self) -> NoReturn:
        """There are none.

        Raises:
            ValueError: always, with advice.
        """
        raise ValueError("annealed_smc has nothing to train: use sbflow sample algorithm=annealed_smc target=NAME")

    def prepare(self, num_steps: int | None, *, trained: bool) -> None:
        """Choose temperatures and step sizes by a pilot run, unless that was done."""
        num_steps = num_steps or self.num_steps
        if num_steps not in self.ladders:
            # a quarter of the run's is enough to place its levels; the pilot moves four times as often
            pilot = self.like(1, min(PILOT_PARTICLES, max(self.num_particles // 4, LEAST_PILOT)))
            generator = seeded_generator(num_steps or 0, LADDER_STREAM, device=self.device)
            with self.counted(self.training_evaluations):
                self.ladders[num_steps] = annealing_ladder(self._engine(generator), pilot, num_steps=num_steps)

    def draw(
        self, like: Float[Tensor, "r n d"], generator: torch.Generator, *, num_steps: int | None, trained: bool
    ) -> Draw:
        """See `EvidenceSampler.draw`."""
        ladder = self.ladders[num_steps or self.num_steps]
        particles, path = climb(self._engine(generator), like, ladder)
        return Draw(particles, path, torch.stack([level.time for level in ladder.levels()]))

    def _engine(self, generator: torch.Generator) -> Engine:
        # of a kernel, annealing uses the potential at t = 0 alone
        process = OrnsteinUhlenbeck()
        return Engine(GuidedDenoising(process, self.naive(process)), generator=generator, **self.options)
