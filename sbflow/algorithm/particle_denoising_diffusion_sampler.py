"""Particle Denoising Diffusion Sampler: particles guided by a potential that is learned from the particles."""

import copy
import math
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.algorithm.ema import averaged
from sbflow.algorithm.evidence_sampler import Draw, EvidenceSampler, check_count
from sbflow.algorithm.fused import may_fuse
from sbflow.algorithm.particle_scheme import Moves, ParticleScheme, TimeGrid, markov_moves
from sbflow.algorithm.pool import LossName, Pool, score_matching
from sbflow.integrator import Coefficient
from sbflow.loss import ScoreMatching
from sbflow.potential import Guide, NeuralPotential, Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import GuidedDenoising, Hmc, Ladder, SamplingError, Scheme, SMCPath, log_mean_exp
from sbflow.smc.bound import upper_bounds
from sbflow.target import Target
from sbflow.tensor import seeded_generator
from sbflow.whitening import Whitening

__all__ = ["ParticleDenoisingDiffusionSampler"]

CHECKPOINT_KEY = "particle_denoising_diffusion_sampler"
# as many particles as a run has, up to a bound: one that a potential promises too much spoils its run, and is rare
PILOT_RUNS, PILOT_PARTICLES = 10, 10_000
# numbers that the positions of the runs made at once hold at most: 160 MB in float32
PILOT_SIZE = 40_000_000
NEGLIGIBLE = 1e-4  # nats
# last keys of the random streams; a key that ends in 0 would hash as if the 0 were not there
HAND_OVER_STREAM, TRAINING_STREAM, POOL_STREAM, BOUND_STREAM = 1, 5, 6, 7


class ParticleDenoisingDiffusionSampler(EvidenceSampler):
    """Samples an unnormalised density and estimates its normalising constant Z (PDDS).

    Every refinement draws particles with the best guide so far (at first with the naive potential), fits the potential
    to them by score matching, and hands its average on if a pilot run finds it better. Ẑ is unbiased whatever was
    learned, but its spread is not bounded: a potential that was fitted badly where particles are rare can be worse
    than none, and is then discarded.

    Args:
        target: the density.
        whitening: rule that chooses the reference law; the strongest lever on the variance of Ẑ.
        process: noising process in whitened coordinates.
        network: backbone of the potential, called with (z, λ); None samples with the naive potential, untrained.
        num_steps: steps of the sampler, in training and by default in `estimate`.
        num_particles: particles drawn at each refresh, and by default in `estimate`.
        refinements: training iterations.
        updates_per_refinement: optimiser steps of each.
        batch_size: noised particles per optimiser step.
        learning_rate: peak rate of each refinement.
        ema_decay: decay of the average that samples.
        loss: score matching loss, by name or as a function of that signature.
        ess_threshold: resample below this share of the particles; 0 never, 1 always.
        resampling: resampling scheme.
        coefficient: mean of the proposal, see `sbflow.integrator.kernel.guidance_coefficient`.
        moves: Markov moves at every level, ``"mala"``, ``"hmc"`` or made elsewhere; a pilot run tunes their steps.
        num_moves: moves per level, where they are given by name.
        waste_free: keep every state of the chains of moves; ``num_particles`` must be a multiple of ``num_moves`` + 1.
        time_grid: ``"uniform"``, ``"adaptive"``, ``"optimal"`` or ``"online"``, see `ParticleScheme`.
        time_rate: share of the way that ``"online"`` goes at each refresh.
        tempering: of the first weight, by which share, see `ParticleScheme`; None does not temper. Needs moves.
        chunk_size: points per call of the density, or the memory of a call, as "500MB"; None for all at once.
        num_probes: points of a round of the look at what the runs may have missed, see `EvidenceSampler`; 0 for none.

    References:
        Phillips, Dau, Hutchinson, De Bortoli, Deligiannidis, Doucet, "Particle Denoising Diffusion Sampler", 2024.
    """

    trained: Tensor

    def __init__(
        self,
        target: Target,
        whitening: Whitening,
        process: OrnsteinUhlenbeck,
        network: nn.Module | None = None,
        *,
        num_steps: int = 16,
        num_particles: int = 2000,
        refinements: int = 2,
        updates_per_refinement: int = 2500,
        batch_size: int = 300,
        learning_rate: float = 1e-3,
        ema_decay: float = 0.999,
        loss: LossName | ScoreMatching = "fisher",
        ess_threshold: float = 0.3,
        resampling: Scheme = "systematic",
        coefficient: Coefficient = "exponential",
        moves: Moves | Hmc | None = None,
        num_moves: int = 1,
        waste_free: bool = False,
        time_grid: TimeGrid = "uniform",
        time_rate: float = 0.05,
        tempering: float | None = None,
        chunk_size: int | str | None = None,
        num_probes: int = 1300,
    ) -> None:
        super().__init__(target, whitening, num_particles, chunk_size, num_probes)
        for name, value in (("batch_size", batch_size), ("num_steps", num_steps)):
            check_count(name, value, 1)
        if refinements < 0 or updates_per_refinement < 1:
            raise ValueError(
                f"need refinements >= 0 and updates_per_refinement >= 1, got {refinements} and {updates_per_refinement}"
            )
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {learning_rate}")
        # refuses a process or coefficient that it cannot use, before anything is trained
        GuidedDenoising(process, Potential(), coefficient)
        process.noise_level(torch.ones(()))
        self.scheme = ParticleScheme(
            resampling=resampling,
            ess_threshold=ess_threshold,
            moves=markov_moves(moves, num_moves=num_moves, waste_free=waste_free),
            time_grid=time_grid,
            time_rate=time_rate,
            tempering=tempering,
            chunk_size=chunk_size,
        )
        self.process = process
        self.coefficient = coefficient
        self.loss = score_matching(loss)
        self.guide = Guide(network) if network is not None else None
        if self.guide is not None:
            self.ema = averaged(self.guide, ema_decay)
            # the best guide so far, which draws the particles
            self.drawing = copy.deepcopy(self.ema.module)
        self.register_buffer("trained", torch.tensor(False))
        self.num_steps = num_steps
        self.refinements = refinements
        self.updates_per_refinement = updates_per_refinement
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.pool: Pool | None = None
        self.pool_step = 0
        self.stream: int | None = None

    @property
    def max_steps(self) -> int:
        """Optimiser steps of all refinements."""
        return self.refinements * self.updates_per_refinement

    @property
    def stage(self) -> str:
        """The refinement that the next training step belongs to, counted from 1."""
        return f"refinement_{1 + min(self.global_step // self.updates_per_refinement, self.refinements - 1)}"

    def potential(self, guide: Guide | None) -> Potential:
        """Potential in whitened coordinates: with a guide, or the naive one."""
        naive = self.naive(self.process)
        return naive if guide is None else NeuralPotential(naive, guide)

    def prepare(self, num_steps: int | None = None, *, trained: bool = True) -> None:
        """Tune the time grid and the moves by a pilot run, unless that was done."""
        key = self._key(num_steps, trained)
        with self.counted(self.training_evaluations):
            self.scheme.prepare(key, self._kernel(self._potential(key[1])), self.like(1, 1))

    def draw(
        self, like: Float[Tensor, "r n d"], generator: torch.Generator, *, num_steps: int | None, trained: bool
    ) -> Draw:
        """See `EvidenceSampler.draw`; a trained guide serves any number of steps."""
        key = self._key(num_steps, trained)
        drawn = self._run(self._potential(trained), like, self.scheme.ladders[key], generator)
        return drawn._replace(predicted_variance=self.scheme.predicted_variance(key))

    @torch.no_grad()
    def upper_bound(
        self, num_samples: int, *, num_steps: int | None = None, seed: int = 0, trained: bool = True
    ) -> Float[Tensor, " n"]:
        """Values whose mean is an upper bound of log Z, from exact samples; see `sbflow.smc.bound.upper_bounds`.

        Raises:
            NotImplementedError: the target has no exact sampler.
        """
        self.whiten()
        self.prepare(num_steps, trained=trained)
        times = self.scheme.ladders[self._key(num_steps, trained)].times
        generator = seeded_generator(seed, BOUND_STREAM, device=self.device)
        z = self.affine.inverse(self.target.sample(num_samples, generator=generator).to(self.like(1, 1)))
        return upper_bounds(self._kernel(self._potential(trained)), z, times, generator=generator)

    def on_fit_start(self) -> None:
        """Fit the whitening; take the seed of the run, unless a checkpoint brought it."""
        self.whiten()
        if self.stream is None:
            self.stream = torch.initial_seed() % 2**31
        # a checkpoint is read before the module moves to its device
        self.pool = self.pool and self.pool.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin a refinement where one is due; draw a fresh pool of particles then, and after each epoch's steps."""
        refinement, done = divmod(self.global_step, self.updates_per_refinement)
        if begins := done == 0 and refinement > 0:
            self.optimizers().optimizer.state.clear()
        # counted in steps and not in epochs: a run may be resumed in the middle of one
        if begins or self.pool is None or self.global_step - self.pool_step >= self.trainer.num_training_batches:
            self._refresh()

    @torch.no_grad()
    def _refresh(self) -> None:
        generator = self._generator(POOL_STREAM)
        self.prepare()
        with self.counted(self.training_evaluations):
            particles, path, *_ = self.draw(self.like(1, self.num_particles), generator, num_steps=None, trained=True)
        if self.scheme.time_grid == "online":
            self._follow(path)
        self.pool, self.pool_step = Pool.of(particles, generator).seen_by(self.loss), self.global_step
        self.log_dict({"train/log_z": path.log_z[-1, 0].float(), "train/ess": path.ess[-1, 0].float()})

    def _follow(self, path: SMCPath) -> None:
        """Let all processes go on along one grid, which what each has seen makes."""
        seen = self.all_gather(path.increment_variance).reshape(-1, *path.increment_variance.shape)
        path = path._replace(increment_variance=torch.cat(tuple(seen), -1))
        num_particles = self.num_particles * len(seen)
        self.scheme.follow(self._key(None, True), path, num_particles, self.coefficient)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step of score matching on the pool."""
        assert self.pool is not None
        generator = self._generator(TRAINING_STREAM, batch_idx % self.trainer.accumulate_grad_batches)
        with self.counted(self.training_evaluations):
            loss = self.pool.loss(self.loss, self.potential(self.guide), self.process, self.batch_size, generator)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average: once per optimiser step whatever the accumulation. Hand over after the last one."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.guide)
        if int(self.ema.n_averaged) % self.updates_per_refinement == 0:
            with self.counted(self.training_evaluations):
                self._hand_over()

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam with a half-cosine decay over each refinement, so that none of its steps idles."""
        if self.guide is None:
            raise ValueError("network must be given to train; without one use `estimate`")
        optimizer = torch.optim.Adam(self.guide.parameters(), lr=self.learning_rate, fused=may_fuse(self) or None)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda k: 0.5 * (1 + math.cos(math.pi * (k % self.updates_per_refinement) / self.updates_per_refinement)),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what training needs to go on as if it had not stopped."""
        pool = self.pool and tuple(self.pool)
        checkpoint[CHECKPOINT_KEY] = {"stream": self.stream, "pool": pool, "pool_step": self.pool_step}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the pool and the seed of the run that was interrupted."""
        state = checkpoint[CHECKPOINT_KEY]
        self.stream, self.pool_step = state["stream"], state["pool_step"]
        if state["pool"] is not None:
            self.pool = Pool(*state["pool"]).to(self.device).seen_by(self.loss)

    @torch.no_grad()
    def _hand_over(self) -> None:
        """Keep the average as the guide that draws, if a pilot run finds it better than the one before."""
        before, after = self._pilot(self._potential(True)), self._pilot(self.potential(self.ema.module.eval()))
        # both estimates of Z are unbiased, so the higher one misses less: it is the reference for both
        reference = max(float(log_mean_exp(before)), float(log_mean_exp(after)))
        errors = [float(((log_z - reference) ** 2).mean()) for log_z in (before, after)]
        if errors[1] > max(errors[0], NEGLIGIBLE**2):
            warnings.warn(
                f"{self.stage} was discarded: its pilot log Z scattered by {errors[1] ** 0.5:.3g}, before by "
                f"{errors[0] ** 0.5:.3g}; raise num_particles or num_steps, or lower learning_rate",
                stacklevel=2,
            )
            return
        self.drawing.load_state_dict(self.ema.module.state_dict())
        self.trained.fill_(True)
        self.scheme.forget_trained()

    def _pilot(self, potential: Potential) -> Float[Tensor, " r"]:
        """Estimates of log Z from a few runs; minus infinity where a run broke down."""
        # apart from every seed of `estimate`: were the guide chosen on the draws that are then reported, their Ẑ would
        # be biased; the same for both candidates, so that they differ by their guides alone
        generator = seeded_generator(int(self.ema.n_averaged), HAND_OVER_STREAM, device=self.device)
        num_particles = min(self.num_particles, PILOT_PARTICLES)
        at_once = max(1, PILOT_SIZE // (num_particles * self.target.dim))
        try:
            ladder, _ = self.scheme.tuned(self._kernel(potential), self.like(1, 1), self.num_steps)
            sweeps = [min(at_once, PILOT_RUNS - done) for done in range(0, PILOT_RUNS, at_once)]
            likes = (self.like(runs, num_particles) for runs in sweeps)
            return torch.cat([self._run(potential, like, ladder, generator).particles.log_z for like in likes])
        except SamplingError:
            return torch.full((PILOT_RUNS,), -torch.inf, dtype=torch.float64, device=self.device)

    def _kernel(self, potential: Potential) -> GuidedDenoising:
        return GuidedDenoising(self.process, potential, self.coefficient)

    def _key(self, num_steps: int | None, trained: bool) -> tuple[int, bool]:
        return num_steps or self.num_steps, trained and bool(self.trained)

    def _potential(self, trained: bool) -> Potential:
        """The best potential so far, or the naive one."""
        return self.potential(self.drawing.eval() if trained and self.trained else None)

    def _run(
        self, potential: Potential, like: Float[Tensor, "r n d"], ladder: Ladder, generator: torch.Generator
    ) -> Draw:
        particles, path = self.scheme.run(self._kernel(potential), like, ladder, generator)
        return Draw(particles, path, torch.stack([level.time for level in ladder.levels()]))

    def _generator(self, stream: int, step: int = 0) -> torch.Generator:
        """Source of the randomness of one training step, whatever was drawn before."""
        assert self.stream is not None
        # the rank last: 0 there hashes as if it were not, so that one process draws what it always drew
        return seeded_generator(self.stream, self.global_step, step, stream, self.global_rank, device=self.device)
