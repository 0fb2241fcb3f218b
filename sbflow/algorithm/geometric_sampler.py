"""Tempered densities, products and guidance by samplers that were trained for the factors; nothing is trained anew."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.algorithm.compatibility import check_shared
from sbflow.algorithm.corrector import pilot_share
from sbflow.algorithm.evidence_sampler import Draw, EvidenceSampler
from sbflow.algorithm.particle_denoising_diffusion_sampler import ParticleDenoisingDiffusionSampler
from sbflow.integrator import Coefficient
from sbflow.potential import GeometricPotential, Potential, StandardisedPotential
from sbflow.potential.geometric import check_exponents
from sbflow.process import uniform_times
from sbflow.smc import Cost, Evidence, GuidedDenoising, Scheme, resampling_scheme, sample
from sbflow.target.geometric import GeometricTarget
from sbflow.whitening import Affine

__all__ = ["GeometricSampler"]


class GeometricSampler(EvidenceSampler):
    """The Particle Denoising Diffusion Sampler of Π_i γ_i^{a_i}, guided by Σ_i a_i log ĝ_i.

    Its whitening is that of the samplers, narrower by √A with A = Σ_i a_i, and its potential is exact at t = 0, so that
    Ẑ is unbiased for ∫ Π_i γ_i^{a_i} whatever was learned, in the absolute units of the factors. The look at what the
    runs may have missed is that of the first sampler.

    Args:
        samplers: of the factors.
        exponents: a_i.
        num_steps: steps; by default the most that any of the samplers takes.
        num_particles: particles of a run; by default those of the first sampler.
        coefficient: mean of the proposal, see `sbflow.integrator.kernel.guidance_coefficient`.
        speed: see `sbflow.smc.GuidedDenoising`; 2 suits guidance, where the exponents sum to 1.
        ess_threshold: resample below this share of the particles; 0 never, 1 always.
        resampling: resampling scheme.
        chunk_size: points per call of the density, or the memory of a call, as "500MB"; None for all at once.

    Raises:
        ValueError: samplers whose whitenings, processes or dimensions differ; exponents that do not fit; an option out
            of range.

    References:
        Skreta et al., "Feynman-Kac Correctors in Diffusion: Annealing, Guidance, and Product of Experts", 2025, whose
        correctors know scores alone; the form with potentials is our own derivation.
    """

    def __init__(
        self,
        samplers: Sequence[ParticleDenoisingDiffusionSampler],
        exponents: Sequence[float],
        *,
        num_steps: int | None = None,
        num_particles: int | None = None,
        coefficient: Coefficient = "exponential",
        speed: float = 1.0,
        ess_threshold: float = 0.3,
        resampling: Scheme = "systematic",
        chunk_size: int | str | None = None,
    ) -> None:
        exponents = check_exponents(exponents, len(samplers))
        first = samplers[0]
        target = GeometricTarget([part.target for part in samplers], exponents)
        num_particles = first.num_particles if num_particles is None else num_particles
        super().__init__(target, first.whitening, num_particles, chunk_size, first.num_probes)
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self.to(first.device)
        self.parts = nn.ModuleList(samplers)
        self.exponents = exponents
        self.num_steps = num_steps or max(part.num_steps for part in samplers)
        if not 0 <= ess_threshold <= 1:
            raise ValueError(f"ess_threshold must lie in [0, 1], got {ess_threshold}")
        self.coefficient: Coefficient = coefficient
        self.speed = speed
        self.ess_threshold = ess_threshold
        self.options: dict[str, Any] = {"scheme": resampling_scheme(resampling), "chunk_size": chunk_size}
        self.pilot_ess: dict[tuple[int, bool], float] = {}
        self.whiten()
        self.affine = Affine(first.affine.loc, first.affine.scale / sum(exponents) ** 0.5)
        # refuses a coefficient or speed that it cannot use
        self._kernel(True)

    @property
    def max_steps(self) -> NoReturn:
        """There are none.

        Raises:
            ValueError: always.
        """
        raise ValueError("a combination of samplers has nothing to train: train its parts")

    def whiten(self) -> None:
        """Whiten the parts, unless that was done, and compare.

        Raises:
            ValueError: their whitenings or processes differ.
        """
        if self.whitened:
            return
        for part in self.parts:
            part.whiten()
        check_shared(list(self.parts))
        for name in ("whitening_evaluations", "training_evaluations"):
            getattr(self, name).copy_(torch.stack([getattr(part, name) for part in set(self.parts)]).sum(0))
        self.whitened.fill_(True)

    def prepare(self, num_steps: int | None, *, trained: bool) -> None:
        """Make a short run without resampling, unless that was done: under resampling every run looks well."""
        key = (num_steps or self.num_steps, trained)
        if key in self.pilot_ess:
            return
        with self.counted(self.training_evaluations):
            self.pilot_ess[key] = pilot_share(
                self._kernel(trained), self.like(1, 1), self._times(key[0]), **self.options
            )

    def draw(
        self, like: Float[Tensor, "r n d"], generator: torch.Generator, *, num_steps: int | None, trained: bool
    ) -> Draw:
        """See `EvidenceSampler.draw`."""
        times = self._times(num_steps or self.num_steps)
        particles, path = sample(
            self._kernel(trained), like, times, ess_threshold=self.ess_threshold, generator=generator, **self.options
        )
        return Draw(particles, path, times)

    def estimate(self, **options: Any) -> Evidence:
        """See `EvidenceSampler.estimate`; ``quality`` has the share that counts in the run without resampling."""
        evidence = super().estimate(**options)
        key = (options.get("num_steps") or self.num_steps, options.get("trained", True))
        return replace(evidence, quality={"pilot_ess": self.pilot_ess[key]} | evidence.quality)

    def like(self, replicates: int, num_particles: int) -> Float[Tensor, "r n d"]:
        """Empty particles of the dtype and on the device of the parts."""
        return self.parts[0].like(replicates, num_particles)

    def _times(self, num_steps: int) -> Float[Tensor, " k"]:
        return uniform_times(num_steps, device=self.device).flip(0)

    def _kernel(self, trained: bool) -> GuidedDenoising:
        product = GeometricPotential([_potential(part, trained) for part in self.parts], self.exponents)
        potential = StandardisedPotential(product, self.parts[0].affine.log_det)
        return GuidedDenoising(self.parts[0].process, potential, self.coefficient, speed=self.speed)

    def _spent(self) -> Cost:
        # the potentials call the parts' own targets; one part may stand for several factors
        spent = [(part.target.density_evaluations, part.target.gradient_evaluations) for part in set(self.parts)]
        return Cost(*(sum(column) for column in zip(*spent, strict=True)))


def _potential(part: ParticleDenoisingDiffusionSampler, trained: bool) -> Potential:
    """The best potential of a sampler, or its naive one."""
    return part.potential(part.drawing.eval() if trained and part.trained else None)
