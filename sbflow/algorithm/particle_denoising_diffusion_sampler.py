"""Particle Denoising Diffusion Sampler: particles guided by a potential that is learned from the particles."""

import copy
import math
import time
import warnings
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from torch import Tensor, nn

from sbflow.algorithm.ema import averaged
from sbflow.integrator import Coefficient
from sbflow.loss import novel_score_matching, stratified_times
from sbflow.potential import Guide, NaivePotential, NeuralPotential, Potential
from sbflow.process import OrnsteinUhlenbeck, uniform_times
from sbflow.smc import Evidence, GuidedDenoising, Particles, SMCPath, log_mean_exp, sample, systematic
from sbflow.target import CountingTarget, Target
from sbflow.tensor import seeded_generator
from sbflow.whitening import Whitened, Whitening

__all__ = ["ParticleDenoisingDiffusionSampler"]

PILOT_RUNS = 10
PILOT_PARTICLES = 2000


class ParticleDenoisingDiffusionSampler(LightningModule):
    """Samples an unnormalised density and estimates its normalising constant Z (PDDS).

    Every refinement draws particles with the best guide so far (at first with the naive potential), fits the potential
    to them by novel score matching, and hands its average on if a pilot run finds it better. Ẑ is unbiased whatever
    was learned, but its spread is not bounded: a potential that was fitted badly where particles are rare can be worse
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
        ess_threshold: resample below this share of the particles.
        coefficient: mean of the proposal, see `sbflow.integrator.kernel.guidance_coefficient`.

    References:
        Phillips, Dau, Hutchinson, De Bortoli, Deligiannidis, Doucet, "Particle Denoising Diffusion Sampler", 2024.
    """

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
        ess_threshold: float = 0.3,
        coefficient: Coefficient = "exponential",
    ) -> None:
        super().__init__()
        for name, value in (("num_particles", num_particles), ("batch_size", batch_size), ("num_steps", num_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if refinements < 0 or updates_per_refinement < 1:
            raise ValueError(
                f"need refinements >= 0 and updates_per_refinement >= 1, got {refinements} and {updates_per_refinement}"
            )
        if not 0 <= ess_threshold <= 1:
            raise ValueError(f"ess_threshold must lie in [0, 1], got {ess_threshold}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {learning_rate}")
        # refuses a process or coefficient that it cannot use, before anything is trained
        GuidedDenoising(process, Potential(), coefficient)
        self.pool: tuple[Tensor, Tensor] | None = None
        self.target = CountingTarget(target)
        self.whitening = whitening
        self.process = process
        self.affine = whitening.empty(target.dim)
        self.register_buffer("whitened", torch.tensor(False))
        self.guide = Guide(network) if network is not None else None
        if self.guide is not None:
            self.ema = averaged(self.guide, ema_decay)
            # the best guide so far, which draws the particles
            self.drawing = copy.deepcopy(self.ema.module)
        self.register_buffer("trained", torch.tensor(False))
        self.num_steps = num_steps
        self.num_particles = num_particles
        self.refinements = refinements
        self.updates_per_refinement = updates_per_refinement
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.ess_threshold = ess_threshold
        self.coefficient = coefficient

    @property
    def max_steps(self) -> int:
        """Optimiser steps of all refinements."""
        return self.refinements * self.updates_per_refinement

    @property
    def stage(self) -> str:
        """The refinement that the next training step belongs to, counted from 1."""
        done = min(self.global_step // self.updates_per_refinement, self.refinements - 1)
        return f"refinement_{done + 1}"

    def whiten(self) -> None:
        """Fit the reference law, unless that was done or a checkpoint brought it."""
        if not self.whitened:
            self.affine = self.whitening.fit(self.target).to(self.whitened.device)
            self.whitened.fill_(True)

    def potential(self, guide: Guide | None) -> Potential:
        """Potential in whitened coordinates: with a guide, or the naive one."""
        naive = NaivePotential(Whitened(self.target, self.affine), self.process)
        return naive if guide is None else NeuralPotential(naive, guide)

    @torch.no_grad()
    def estimate(
        self,
        *,
        num_particles: int | None = None,
        num_steps: int | None = None,
        replicates: int = 1,
        seed: int = 0,
        trained: bool = True,
    ) -> Evidence:
        """Estimate log Z and draw weighted samples.

        Args:
            num_particles: particles of each run; by default those of training.
            num_steps: steps of the sampler; by default those of training. A trained guide serves any number.
            replicates: independent runs, in one sweep.
            seed: seed of all randomness.
            trained: with the best guide of the refinements so far, if there is one; False takes the naive potential.

        Raises:
            ValueError: a count below 1.
            FloatingPointError: the density gave NaN, or no particle has weight.
        """
        num_particles = self.num_particles if num_particles is None else num_particles
        for name, value in (("num_particles", num_particles), ("replicates", replicates)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.whiten()
        start, evaluations = time.perf_counter(), self.target.density_evaluations
        particles, path = self._sample(
            self._best_potential() if trained else self.potential(None),
            replicates,
            num_particles,
            self.num_steps if num_steps is None else num_steps,
            seeded_generator(seed, device=self.device),
        )
        samples = self.affine(particles.x.flatten(0, 1)).reshape(particles.x.shape)
        return Evidence.from_run(
            particles,
            path,
            samples,
            evaluations=self.target.density_evaluations - evaluations,
            seconds=time.perf_counter() - start,
        )

    def on_fit_start(self) -> None:
        """Fit the whitening."""
        self.whiten()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin a refinement where one is due; draw a fresh pool of particles then, and at the start of each epoch."""
        refinement, done = divmod(self.global_step, self.updates_per_refinement)
        begins = done == 0 and refinement > 0
        if begins:
            self.optimizers().optimizer.state.clear()
        if begins or batch_idx == 0 or self.pool is None:
            self._refresh()

    def _refresh(self) -> None:
        generator = seeded_generator(int(torch.randint(2**62, ())), device=self.device)
        particles, path = self._sample(self._best_potential(), 1, self.num_particles, self.num_steps, generator)
        chosen = systematic(particles.log_weights, generator)[0]
        self.pool = particles.x[0, chosen], particles.field.grad_log_g[0, chosen]
        self.log_dict({"train/log_z": path.log_z[-1, 0].float(), "train/ess": path.ess[-1, 0].float()})

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step of novel score matching on the pool."""
        x0, grad_log_g0 = self.pool
        chosen = torch.randint(len(x0), (self.batch_size,), device=x0.device)
        t = stratified_times(self.batch_size, 1e-3, 1.0, like=x0)
        loss = novel_score_matching(self.potential(self.guide), self.process, x0[chosen], grad_log_g0[chosen], t)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average: once per optimiser step whatever the accumulation. Hand over after the last one."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.guide)
        if int(self.ema.n_averaged) % self.updates_per_refinement == 0:
            self._hand_over()

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam with a half-cosine decay over each refinement, so that none of its steps idles."""
        if self.guide is None:
            raise ValueError("network must be given to train; without one use `estimate`")
        optimizer = torch.optim.Adam(self.guide.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda k: 0.5 * (1 + math.cos(math.pi * (k % self.updates_per_refinement) / self.updates_per_refinement)),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _best_potential(self) -> Potential:
        return self.potential(self.drawing.eval() if self.trained else None)

    @torch.no_grad()
    def _hand_over(self) -> None:
        """Keep the average as the guide that draws, if a pilot run finds it better than the one before."""
        before, after = self._pilot(self._best_potential()), self._pilot(self.potential(self.ema.module.eval()))
        # both estimates of Z are unbiased, so the higher one is missing less: it is the reference for both
        reference = max(float(log_mean_exp(before)), float(log_mean_exp(after)))
        errors = [float(((log_z - reference) ** 2).mean()) for log_z in (before, after)]
        if errors[1] <= errors[0]:
            self.drawing.load_state_dict(self.ema.module.state_dict())
            self.trained.fill_(True)
        else:
            rms = [error**0.5 for error in errors]
            warnings.warn(
                f"{self.stage} was discarded: its pilot log Z scattered by {rms[1]:.3g}, before by {rms[0]:.3g}; "
                "raise num_particles or num_steps, or lower learning_rate",
                stacklevel=2,
            )

    def _pilot(self, potential: Potential) -> Float[Tensor, " r"]:
        """Estimates of log Z from a few runs; minus infinity where a run broke down."""
        # a second key, apart from every seed of `estimate`: were the guide chosen on the draws that are then reported,
        # their Ẑ would be biased; the same for both candidates, so that they differ by their guides alone
        generator = seeded_generator(int(self.ema.n_averaged), 1, device=self.device)
        num_particles = min(self.num_particles, PILOT_PARTICLES)
        try:
            return self._sample(potential, PILOT_RUNS, num_particles, self.num_steps, generator)[0].log_z
        except FloatingPointError:
            return torch.full((PILOT_RUNS,), -torch.inf, dtype=torch.float64, device=self.device)

    def _sample(
        self, potential: Potential, replicates: int, num_particles: int, num_steps: int, generator: torch.Generator
    ) -> tuple[Particles, SMCPath]:
        like: Float[Tensor, "r n d"] = torch.empty(
            replicates, num_particles, self.target.dim, dtype=self.dtype, device=self.device
        )
        return sample(
            GuidedDenoising(self.process, potential, self.coefficient),
            like,
            uniform_times(num_steps, device=self.device).flip(0),
            ess_threshold=self.ess_threshold,
            generator=generator,
        )
