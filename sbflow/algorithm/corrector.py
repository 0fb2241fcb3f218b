"""Geometric combinations of models that are known by their scores alone: diffusions and Schrödinger bridges."""

import abc
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from torch import Tensor, nn

from sbflow.algorithm.compatibility import check_same_start, check_shared
from sbflow.algorithm.diagnostics import drift_sum
from sbflow.algorithm.evidence_sampler import ISLAND_STREAM
from sbflow.algorithm.score_diffusion import ScoreDiffusion
from sbflow.algorithm.translation import BridgeTranslation
from sbflow.integrator.flow import Flow, flow_from_bridge, flow_from_score
from sbflow.potential.geometric import check_exponents
from sbflow.process import uniform_times
from sbflow.smc import Evidence, Scheme, WeightedKernel, effective_sample_size, resampling_scheme, sample
from sbflow.smc.feynman_kac import FeynmanKacDivergence, FeynmanKacFlow, GaussianStart, SampleStart
from sbflow.tensor import flat_sum, seeded_generator

__all__ = ["BridgeCorrector", "Corrector", "ScoreCorrector", "pilot_share"]

PILOT_PARTICLES = 500
FEW = 2  # particles' worth of weight
# last key of the pilot's random stream, apart from every seed of `estimate`
PILOT_STREAM = 8
# an exact divergence costs as many derivatives as there are dimensions
MOST_DIMENSIONS = 64
FOR_RESIDUAL = 1000  # samples


class Corrector(nn.Module, abc.ABC):
    """Weighted samples of Π_i q_i^{a_i} and log ∫ Π_i q_i^{a_i}, the q_i normalised.

    Both are as good as the models' scores and the steps are many: unlike that of `GeometricSampler`, this Ẑ is biased
    by whatever is wrong with them, without a sign of it in the weights.

    Args:
        models: trained.
        exponents: a_i, of any sign but with a positive sum.
        num_steps: default of `estimate`.
    """

    def __init__(self, models: Sequence[LightningModule], exponents: Sequence[float], num_steps: int) -> None:
        super().__init__()
        self.exponents = check_exponents(exponents, len(models))
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self.models = nn.ModuleList(models)
        self.num_steps = num_steps

    @abc.abstractmethod
    def kernel(self) -> WeightedKernel:
        """The corrected moves."""

    @abc.abstractmethod
    def like(self) -> Float[Tensor, "1 1 d"]:
        """Empty, of the dimension, dtype and device of the particles."""

    @abc.abstractmethod
    def times(self, num_steps: int) -> Float[Tensor, " k"]:
        """Grid in the direction of generation."""

    @abc.abstractmethod
    def finish(self, x: Float[Tensor, "n d"]) -> Tensor:
        """From the coordinates of the particles to those of the samples."""

    def quality(self) -> dict[str, float]:
        """What is known of the models, for the record."""
        return {}

    @torch.no_grad()
    def estimate(
        self,
        *,
        num_particles: int | None = None,
        num_steps: int | None = None,
        replicates: int = 1,
        seed: int = 0,
        island: int = 0,
        ess_threshold: float = 0.3,
        resampling: Scheme = "systematic",
        chunk_size: int | None = None,
    ) -> Evidence:
        """Run, after a short pilot without resampling, whose share of particles that count goes into ``quality``.

        Args:
            num_particles: particles of each run; 2000 by default.
            num_steps: steps; by default those of the constructor.
            replicates: independent runs, in one sweep.
            seed: seed of all randomness.
            island: number of this process, where several make independent runs by one seed.
            ess_threshold: resample below this share of the particles; 0 never, 1 always.
            resampling: resampling scheme.
            chunk_size: points per call of the models; None for all at once.

        Raises:
            ValueError: an option out of range.
        """
        num_particles = 2000 if num_particles is None else num_particles
        num_steps = self.num_steps if num_steps is None else num_steps
        for name, value in (("num_particles", num_particles), ("replicates", replicates), ("num_steps", num_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        options: dict[str, Any] = {"scheme": resampling_scheme(resampling), "chunk_size": chunk_size}
        kernel, times, start = self.kernel(), self.times(num_steps), time.perf_counter()
        share = pilot_share(kernel, self.like(), times, **options)
        like = self.like().expand(replicates, num_particles, -1)
        keys = (seed, ISLAND_STREAM, island) if island else (seed,)
        generator = seeded_generator(*keys, device=like.device)
        particles, path = sample(kernel, like, times, ess_threshold=ess_threshold, generator=generator, **options)
        samples = self.finish(particles.x.flatten(0, 1))
        return Evidence.from_run(
            particles,
            path,
            samples.flatten(1).unflatten(0, like.shape[:2]),
            times=times,
            seconds=time.perf_counter() - start,
            parameters={"x": samples},
            quality={"pilot_ess": share} | self.quality(),
        )


class ScoreCorrector(Corrector):
    """Combination of diffusions.

    Args:
        models: trained, sharing whitening and process.
        exponents: a_i, of any sign but with a positive sum.
        noise_ratio: of the velocity form, see `sbflow.smc.FeynmanKacFlow`; by default the divergence form up to 64
            dimensions or where the exponents sum to 1, and 1 beyond.
        num_steps: default number of steps.

    Raises:
        ValueError: whitenings or processes that differ, or an option that does not fit.
    """

    def __init__(
        self,
        models: Sequence[ScoreDiffusion],
        exponents: Sequence[float],
        *,
        noise_ratio: float | None = None,
        num_steps: int = 200,
    ) -> None:
        super().__init__(models, exponents, num_steps)
        for model in models:
            model.whiten()
        check_shared(models)
        self.affine = models[0].affine
        total = sum(self.exponents)
        exact = noise_ratio is None and (self.affine.dim <= MOST_DIMENSIONS or total == 1)
        self.noise_ratio = None if exact else 1.0 if noise_ratio is None else noise_ratio
        # refuses a ratio that it cannot use
        self.kernel()

    def kernel(self) -> WeightedKernel:
        """The divergence form or the velocity form."""
        flows = [flow_from_score(model.process, model.score) for model in self.models]
        start = GaussianStart(sum(self.exponents), float(self.affine.log_det))
        if self.noise_ratio is None:
            return FeynmanKacDivergence(flows, self.exponents, start=start)
        return FeynmanKacFlow(flows, self.exponents, noise_ratio=self.noise_ratio, start=start)

    def like(self) -> Float[Tensor, "1 1 d"]:
        """As the first model has it."""
        return self.models[0].like(1, 1)

    def times(self, num_steps: int) -> Float[Tensor, " k"]:
        """From noise to the data."""
        return uniform_times(num_steps, device=self.like().device).flip(0)

    def finish(self, x: Float[Tensor, "n d"]) -> Tensor:
        """Undo the whitening."""
        return self.affine(x)


class BridgeCorrector(Corrector):
    """Combination of Schrödinger bridges that start from the same data, by generating forward from it.

    ``quality`` holds the Nelson residual of each model, |−E[(X_t − E X_t) · (f + b)] / (ε d) − 1| half way: how far its
    two drifts are from belonging to one process, without which there is no score to correct by.

    Args:
        models: trained, with the same ε and samples of one shape.
        exponents: a_i, which must sum to 1.
        x0: samples of the shared π₀.
        noise_ratio: see `sbflow.smc.FeynmanKacFlow`.
        num_steps: default number of steps.

    Raises:
        ValueError: exponents that do not sum to 1, models of other data, shape or ε, or ``x0`` of another shape.
    """

    x0: Tensor

    def __init__(
        self,
        models: Sequence[BridgeTranslation],
        exponents: Sequence[float],
        x0: Float[Tensor, "m *event"],
        *,
        noise_ratio: float = 1.0,
        num_steps: int = 100,
    ) -> None:
        super().__init__(models, exponents, num_steps)
        for model in models[1:]:
            check_same_start(models[0], model)
        models[0]._checked(x0, "forward")
        self.event_shape = models[0].event_shape
        self.noise_ratio = noise_ratio
        self.register_buffer("x0", x0.to(models[0].drift.mean))
        # refuses exponents or a ratio that it cannot use
        self.kernel()

    def kernel(self) -> WeightedKernel:
        """The velocity form."""
        flows = [_bridge_flow(model) for model in self.models]
        start = SampleStart(self.x0.flatten(1))
        return FeynmanKacFlow(flows, self.exponents, noise_ratio=self.noise_ratio, start=start)

    def like(self) -> Float[Tensor, "1 1 d"]:
        """As the data, flat."""
        return self.x0.new_empty(1, 1, self.x0[0].numel())

    def times(self, num_steps: int) -> Float[Tensor, " k"]:
        """From π₀ to the other end."""
        return uniform_times(num_steps, device=self.x0.device)

    def finish(self, x: Float[Tensor, "n d"]) -> Tensor:
        """Restore the shape."""
        return x.unflatten(1, self.event_shape)

    def quality(self) -> dict[str, float]:
        """Nelson residuals."""
        x0 = self.x0[:FOR_RESIDUAL]
        return {f"nelson_residual_{i}": _nelson_residual(model, x0) for i, model in enumerate(self.models)}


@torch.no_grad()
def pilot_share(
    kernel: WeightedKernel, like: Float[Tensor, "1 1 d"], times: Float[Tensor, " k"], **options: Any
) -> float:
    """Share of the particles that count in a short run without resampling, under which every run looks well.

    Warns where next to nothing is left: the exponents may then describe no density at all.
    """
    generator = seeded_generator(len(times), PILOT_STREAM, device=like.device)
    pilot = like.expand(1, PILOT_PARTICLES, -1)
    particles, _ = sample(kernel, pilot, times, ess_threshold=0.0, generator=generator, **options)
    ess = float(effective_sample_size(particles.log_weights)[0])
    if ess < FEW:
        warnings.warn(
            f"without resampling only {ess:.1f} of {PILOT_PARTICLES} particles count: the exponents may describe no "
            "density; if they do, raise num_steps and compare several replicates",
            stacklevel=3,
        )
    return ess / PILOT_PARTICLES


def _bridge_flow(model: BridgeTranslation) -> Flow:
    """Flow of the averaged network, on flat points."""
    drift = model.ema.module.eval()

    def directed(flag: int) -> Callable[[Tensor, Tensor], Tensor]:
        def field(x: Float[Tensor, "n d"], u: Tensor) -> Float[Tensor, "n d"]:
            rows = torch.full((len(x),), flag, device=x.device)
            return drift(x.unflatten(1, model.event_shape), u.reshape(1).to(x.dtype), rows).flatten(1)

        return field

    return flow_from_bridge(directed(0), directed(1), model.process.epsilon)


def _nelson_residual(model: BridgeTranslation, x0: Float[Tensor, "m *event"]) -> float:
    x = model.translate(x0, num_steps=30, seed=0, last_noise=True, return_path=True)[15]
    total = drift_sum(model.ema.module.eval(), x, torch.full((len(x),), 0.5, dtype=x.dtype, device=x.device))
    product = flat_sum((x - x.mean(0)) * total).mean()
    return abs(float(-product / (model.process.epsilon * x[0].numel())) - 1)
