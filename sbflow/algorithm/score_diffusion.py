"""A diffusion sampler whose score is learned from exact samples of its target."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.algorithm.ema import averaged
from sbflow.algorithm.evidence_sampler import Draw, EvidenceSampler
from sbflow.algorithm.fused import may_fuse
from sbflow.algorithm.pool import LossName, Pool
from sbflow.algorithm.score_field import PathPotential, ScoreField
from sbflow.integrator import Coefficient, FieldKernel, guided_denoising, simulate
from sbflow.integrator.kernel import guidance_coefficient
from sbflow.loss import Denoising, Mixing, named_mixing, score_matching
from sbflow.process import OrnsteinUhlenbeck, uniform_times
from sbflow.smc import GuidedDenoising
from sbflow.smc import sample as sample_particles
from sbflow.target import Target
from sbflow.tensor import seeded_generator
from sbflow.whitening import Affine, Standard, Whitened, Whitening

__all__ = ["ScoreDiffusion"]

CHECKPOINT_KEY = "score_diffusion"
# last keys of the random streams
TRAINING_STREAM, POOL_STREAM, SAMPLING_STREAM = 1, 2, 3


class _Unknown(Target):
    """The density behind samples that came without one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim


class ScoreDiffusion(EvidenceSampler):
    """Learns the scores of a noised target from samples of it, and draws new ones by the guided reversal.

    The label of the score may use the target's own (target score matching), which where noise is small leaves little
    to learn from the noise; the default mix has the least variance at every level. The randomness of a training step is
    a function of the run's seed and of the step, so that a resumed run goes on exactly as the undisturbed one.

    `sample` draws plainly. `estimate` weighs the same draws by their whole paths, which makes an unbiased estimate of
    Z and shows by its effective sample size how good the learned scores are.

    Args:
        target: the density, with an exact sampler unless ``samples`` are given; None for samples alone.
        whitening: rule that chooses the reference law N(m, L Lᵀ); None standardises each coordinate by the samples.
        process: noising process in whitened coordinates, with σ = 1.
        network: backbone of the score, called with (z, √λ), its output zero at initialisation.
        samples: samples of the target ``[m, d]``; None draws them from it.
        num_steps: steps of the sampler, by default.
        num_particles: samples drawn by `estimate`, by default.
        num_samples: samples drawn for training, where ``samples`` are not given.
        train_steps: optimiser steps.
        batch_size: noised samples per optimiser step.
        learning_rate: peak rate.
        ema_decay: decay of the average that samples.
        loss: labels of the score, see `sbflow.loss.mixing`; samples without a density need ``"denoising"``.
        coefficient: mean of a step, see `sbflow.integrator.kernel.guidance_coefficient`.
        num_probes: points of a round of the look at what the runs may have missed, see `EvidenceSampler`; 0 for none.

    Raises:
        ValueError: an option out of range, or a loss that needs the density of samples that came without one.

    References:
        De Bortoli, Hutchinson, Wirnsberger, Doucet, "Target Score Matching", 2024.
    """

    def __init__(
        self,
        target: Target | None,
        whitening: Whitening | None,
        process: OrnsteinUhlenbeck,
        network: nn.Module | None,
        *,
        samples: Float[Tensor, "m d"] | None = None,
        num_steps: int = 100,
        num_particles: int = 2000,
        num_samples: int = 30_000,
        train_steps: int = 3000,
        batch_size: int = 300,
        learning_rate: float = 1e-3,
        ema_decay: float = 0.999,
        loss: LossName | Mixing = "fisher",
        coefficient: Coefficient = "exponential",
        num_probes: int = 1300,
    ) -> None:
        if target is None and samples is None:
            raise ValueError("give target, samples or both, got neither")
        density = _Unknown(samples.shape[-1]) if target is None else target
        super().__init__(density, Standard() if whitening is None else whitening, num_particles, num_probes=num_probes)
        counts = {"num_steps": num_steps, "train_steps": train_steps, "batch_size": batch_size}
        for name, value in (counts | {"num_samples": num_samples}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {learning_rate}")
        if process.sigma != 1:
            raise ValueError(f"process.sigma must be 1 in whitened coordinates, got {process.sigma}")
        if network is None:
            raise ValueError("network must be given, got null: a score is learned")
        if samples is not None and (samples.ndim != 2 or samples.shape[1] != density.dim or len(samples) < 2):
            raise ValueError(f"samples must have shape [m, {density.dim}] with m >= 2, got {list(samples.shape)}")
        # refuses an unknown coefficient before anything is trained
        guidance_coefficient(torch.ones(()), torch.zeros(()), coefficient)
        self.loss = named_mixing(loss) if isinstance(loss, str) else loss
        if target is None and (whitening is not None or not isinstance(self.loss, Denoising)):
            raise ValueError("samples without a target need loss='denoising' and whitening=None")
        self.standardises = whitening is None
        self.has_density = target is not None
        self.process = process
        self.coefficient = coefficient
        self.field = ScoreField(network, process)
        self.ema = averaged(self.field, ema_decay)
        self.samples = samples
        self.num_steps = num_steps
        self.num_samples = num_samples
        self.train_steps = train_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.pool: Pool | None = None
        self.stream: int | None = None

    @property
    def max_steps(self) -> int:
        """Optimiser steps."""
        return self.train_steps

    @property
    def stage(self) -> str:
        """There is one."""
        return "train"

    def grad_log_g(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, "n d"]:
        """∇ log g_t at whitened points: the learned score plus z; t is a scalar or one per sample ``[n]``."""
        return self.ema.module.eval()(z, t)

    def score(self, z: Float[Tensor, "n d"], t: Tensor) -> Float[Tensor, "n d"]:
        """∇ log π_t at whitened points, of the noised and whitened target."""
        return self.grad_log_g(z, t) - z

    def kernel(self) -> FieldKernel:
        """A step of the sampler in whitened coordinates, from a time to an earlier one."""
        return guided_denoising(self.process, self.grad_log_g, self.coefficient)

    @torch.no_grad()
    def sample(
        self, n: int, *, num_steps: int | None = None, seed: int = 0, last_noise: bool = True
    ) -> Float[Tensor, "n d"]:
        """Draw samples, in the target's coordinates as those of `Target.sample`.

        Args:
            n: number of samples.
            num_steps: steps; by default those of the constructor.
            seed: seed of all randomness.
            last_noise: whether the last step draws noise.

        Raises:
            ValueError: a count below 1.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        times = uniform_times(self.num_steps if num_steps is None else num_steps, device=self.device).flip(0)
        self.whiten()
        generator = seeded_generator(seed, SAMPLING_STREAM, device=self.device)
        z = torch.randn(n, self.target.dim, generator=generator, device=self.device, dtype=self.dtype)
        return self.affine(simulate(self.kernel(), z, times, last_noise=last_noise, generator=generator))

    def draw(
        self, like: Float[Tensor, "r n d"], generator: torch.Generator, *, num_steps: int | None, trained: bool
    ) -> Draw:
        """See `EvidenceSampler.draw`; untrained, the naive potential guides."""
        # times on the CPU: to ask whether one is 0 waits for no device
        times = uniform_times(self.num_steps if num_steps is None else num_steps).flip(0)
        naive = self.naive(self.process)
        learned = trained and int(self.ema.n_averaged) > 0
        potential = PathPotential(naive, self.ema.module.eval()) if learned else naive
        kernel = GuidedDenoising(self.process, potential, self.coefficient)
        return Draw(*sample_particles(kernel, like, times, ess_threshold=0.0, generator=generator), times)

    def prepare(self, num_steps: int | None, *, trained: bool) -> None:
        """Refuse to weigh samples by a density that is not known."""
        if not self.has_density:
            raise ValueError("estimate needs the density of the target; sample does without")

    def whiten(self) -> None:
        """See `EvidenceSampler.whiten`; without a rule the samples decide."""
        if self.standardises and not self.whitened:
            self.affine = Affine.from_samples(self._exact().double(), diagonal=True).to(self.whitened.device)
            if self.has_density:
                with self.counted(self.whitening_evaluations):
                    self._check()
            self.whitened.fill_(True)
        super().whiten()

    def on_fit_start(self) -> None:
        """Take the seed of the run, unless a checkpoint brought it; draw the samples and fit the whitening."""
        fresh = self.stream is None
        if fresh:
            # the same on every process, as all train one network
            self.stream = self.trainer.strategy.broadcast(torch.initial_seed() % 2**31)
        self.whiten()
        # the samples of a resumed run are those that its checkpoint has counted
        with self.counted(self.training_evaluations if fresh else torch.zeros(2, dtype=torch.long)):
            self.pool = self._pool().seen_by(self.loss)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step of score matching."""
        assert self.pool is not None and self.stream is not None
        micro = batch_idx % self.trainer.accumulate_grad_batches
        keys = self.stream, self.global_rank, self.global_step, micro, TRAINING_STREAM
        generator = seeded_generator(*keys, device=self.device)
        batch_of_pool = self.pool.batch(self.batch_size, generator)
        loss = score_matching(self.field, self.process, *batch_of_pool, mixing=self.loss, generator=generator)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average: once per optimiser step whatever the accumulation."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.field)

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam with a half-cosine decay."""
        optimizer = torch.optim.Adam(self.field.parameters(), lr=self.learning_rate, fused=may_fuse(self) or None)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / self.train_steps, 1)))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the seed of the run, of which its samples are a function."""
        checkpoint[CHECKPOINT_KEY] = {"stream": self.stream}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the seed of the run that was interrupted."""
        self.stream = checkpoint[CHECKPOINT_KEY]["stream"]

    def _exact(self) -> Float[Tensor, "m d"]:
        """The samples to learn from, in the target's coordinates."""
        if self.samples is not None:
            return self.samples.to(self.device)
        generator = seeded_generator(self.stream or 0, POOL_STREAM)
        try:
            return self.target.sample(self.num_samples, generator=generator).to(self.device)
        except NotImplementedError as error:
            raise ValueError(f"{error}: give samples, or learn from particles by the PDDS algorithm") from error

    @torch.no_grad()
    def _pool(self) -> Pool:
        """Whitened samples with the gradients of log g_0, of zero score where there is no density."""
        z = self.affine.inverse(self._exact()).to(self.dtype)
        if not self.has_density:
            return Pool(z, z)
        score = Whitened(self.target, self.affine).score(z)
        bad = int((~score.isfinite().all(1)).sum())
        if bad:
            raise ValueError(f"the target's score must be finite at the samples, it is not at {bad} of {len(z)}")
        return Pool(z, score + z)
