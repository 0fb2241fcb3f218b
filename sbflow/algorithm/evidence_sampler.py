"""What every sampler of an unnormalised density shares: whitening, counting its cost and writing the record."""

import abc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from typing import NamedTuple

import torch
from jaxtyping import Float
from lightning import LightningModule
from torch import Tensor

from sbflow.potential import NaivePotential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import (
    Cost,
    Evidence,
    GuidedDenoising,
    Particles,
    SamplingError,
    SMCPath,
    probe_beyond,
    sample_annealed,
)
from sbflow.smc.memory import Pieces
from sbflow.target import CountingTarget, Target, check_target
from sbflow.tensor import seeded_generator
from sbflow.whitening import Pilot, Whitened, Whitening

__all__ = ["Draw", "EvidenceSampler", "IncompleteRun"]

# second keys of the random streams, apart from every seed of `estimate`: what is chosen on the draws that are then
# reported would bias their Ẑ
WHITENING_STREAM, CHECK_STREAM, PROBE_STREAM = 2, 3, 13
ISLAND_STREAM = 11
PILOT_PARTICLES = 1000


class Draw(NamedTuple):
    """A finished run.

    Attributes:
        particles: its r sets of n particles.
        path: diagnostics of its k levels.
        times: time of each level ``[k]``.
        predicted_variance: sum of the variances of the log-weights that the grid of times promises; NaN if nothing.
    """

    particles: Particles
    path: SMCPath
    times: Float[Tensor, " k"]
    predicted_variance: float = math.nan


class IncompleteRun(FloatingPointError):
    """A run that broke down on the way.

    Attributes:
        evidence: what had been computed, or None; its particles stand at a positive time or exponent, where Ẑ has
            the right mean already but the samples are not yet those of the target.
    """

    def __init__(self, message: str, evidence: Evidence | None) -> None:
        super().__init__(message)
        self.evidence = evidence


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is no number of things, or too few.

    Raises:
        ValueError: names the option.
    """
    if not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


class EvidenceSampler(LightningModule, abc.ABC):
    """Estimates the normalising constant of a density with particles that start from a fitted Gaussian.

    Args:
        target: the density.
        whitening: rule that chooses the reference law; the strongest lever on the variance of Ẑ.
        num_particles: particles of a run.
        chunk_size: points per call of the density, or the memory of a call, as "500MB"; None for all at once.
        num_probes: points of a round of `sbflow.smc.probe_beyond` after the runs, at most as many as all
            of them have particles; 0 does not look further out than they did.

    Raises:
        ValueError: ``num_particles`` is below 1 or ``num_probes`` below 0.
    """

    whitened: Tensor
    whitening_evaluations: Tensor
    training_evaluations: Tensor

    def __init__(
        self,
        target: Target,
        whitening: Whitening,
        num_particles: int,
        chunk_size: int | str | None = None,
        num_probes: int = 1300,
    ) -> None:
        super().__init__()
        check_count("num_particles", num_particles, 1)
        check_count("num_probes", num_probes, 0)
        self.pieces = Pieces(chunk_size)
        self.target = CountingTarget(target)
        self.whitening = whitening
        self.affine = whitening.empty(target.dim)
        self.num_particles = num_particles
        self.num_probes = num_probes
        self.register_buffer("whitened", torch.tensor(False))
        # of density and gradient; with the weights, so that a checkpoint knows what it has cost
        self.register_buffer("whitening_evaluations", torch.zeros(2, dtype=torch.long))
        self.register_buffer("training_evaluations", torch.zeros(2, dtype=torch.long))

    @abc.abstractmethod
    def draw(
        self, like: Float[Tensor, "r n d"], generator: torch.Generator, *, num_steps: int | None, trained: bool
    ) -> Draw:
        """Run the sampler in whitened coordinates.

        Args:
            like: gives runs, particles, dimension, dtype and device.
            generator: source of all randomness.
            num_steps: steps; None for the sampler's own number.
            trained: with what was learned, where there is something.
        """

    def prepare(self, num_steps: int | None, *, trained: bool) -> None:
        """Make the pilot runs that `draw` needs and whose results are kept; none unless overridden."""

    def whiten(self) -> None:
        """Fit the reference law and check the density there, unless that was done or a checkpoint brought it.

        Raises:
            ValueError: the density fails the check, or the whitening does not fit it.
        """
        if self.whitened:
            return
        with self.counted(self.whitening_evaluations):
            self.affine = self.whitening.fit(self.target).to(self.whitened.device)
            self._check()
            if isinstance(self.whitening, Pilot):
                self.affine = self._refitted(self.whitening).to(self.whitened.device)
        self.whitened.fill_(True)

    @torch.no_grad()
    def estimate(
        self,
        *,
        num_particles: int | None = None,
        num_steps: int | None = None,
        replicates: int = 1,
        seed: int = 0,
        island: int = 0,
        trained: bool = True,
    ) -> Evidence:
        """Estimate log Z and draw weighted samples.

        Args:
            num_particles: particles of each run; by default those of the constructor.
            num_steps: steps of the sampler; by default those of the constructor.
            replicates: independent runs, in one sweep.
            seed: seed of all randomness.
            island: number of this process, where several make independent runs by one seed; see
                `sbflow.smc.islands.combine`.
            trained: with the best of what was learned, if anything was; False takes the naive potential.

        Raises:
            ValueError: a count below 1, or a density that fails the check before the run.
            IncompleteRun: the density raised or gave no weight to any particle; names the time and how many particles.
        """
        num_particles = self.num_particles if num_particles is None else num_particles
        counts = ("num_particles", num_particles, 1), ("replicates", replicates, 1), ("island", island, 0)
        for name, value, least in (*counts, ("num_steps", 1 if num_steps is None else num_steps, 1), ("seed", seed, 0)):
            check_count(name, value, least)
        self.whiten()
        self.prepare(num_steps, trained=trained)
        start, before = time.perf_counter(), self._spent()
        keys = (seed, ISLAND_STREAM, island) if island else (seed,)
        generator = seeded_generator(*keys, device=self.device)
        try:
            drawn = self.draw(self.like(replicates, num_particles), generator, num_steps=num_steps, trained=trained)
        except SamplingError as error:
            raise IncompleteRun(str(error), self._so_far(error, start, before)) from error
        evidence = self._evidence(drawn, start, before)
        if self.num_probes == 0:
            return evidence
        return self._probed(evidence, drawn.particles, seeded_generator(*keys, PROBE_STREAM, device=self.device))

    def like(self, replicates: int, num_particles: int) -> Float[Tensor, "r n d"]:
        """Empty particles of the dtype and on the device of this module."""
        return torch.empty(replicates, num_particles, self.target.dim, dtype=self.dtype, device=self.device)

    def naive(self, process: OrnsteinUhlenbeck) -> NaivePotential:
        """The untrained potential in whitened coordinates."""
        return NaivePotential(Whitened(self.target, self.affine), process)

    @contextmanager
    def counted(self, account: Tensor) -> Iterator[None]:
        """Add the evaluations made inside to a buffer ``[2]``."""
        before = self._spent()
        try:
            yield
        finally:
            account += torch.tensor(self._spent(), device=account.device) - torch.tensor(before, device=account.device)

    def _spent(self) -> Cost:
        return Cost(self.target.density_evaluations, self.target.gradient_evaluations)

    def _check(self) -> None:
        """Check the density where it is positive; nowhere near the start is the run's to report, with its time."""
        x = self._start()
        log_prob = self.target.log_prob(x)
        if log_prob.shape == x.shape[:1]:
            x = x[~log_prob.isnan() & (log_prob > -torch.inf)]
        if len(x):
            check_target(self.target, x)

    def _start(self, num: int = 64) -> Float[Tensor, "n d"]:
        """Points from the centre of the reference law out to its draws, where runs begin."""
        generator = seeded_generator(0, CHECK_STREAM, device=self.device)
        z = torch.randn(num, self.target.dim, generator=generator, device=self.device, dtype=self.dtype)
        return self.affine(z * torch.linspace(0, 1, num, device=self.device, dtype=self.dtype)[:, None])

    @torch.no_grad()
    def _refitted(self, whitening: Pilot) -> torch.nn.Module:
        """Moments of an annealed run that starts from the first fit."""
        process = OrnsteinUhlenbeck()
        kernel = GuidedDenoising(process, self.naive(process))
        generator = seeded_generator(0, WHITENING_STREAM, device=self.device)
        particles, _ = sample_annealed(kernel, self.like(1, PILOT_PARTICLES), generator=generator)
        return whitening.refit(self.affine(particles.x[0]), particles.log_weights[0])

    def _probed(self, evidence: Evidence, particles: Particles, generator: torch.Generator) -> Evidence:
        """The record with what points further out have found, for the evaluations of two or three steps."""
        before, log_prob = self._spent(), Whitened(self.target, self.affine).log_prob
        found = probe_beyond(
            lambda z: torch.cat(self.pieces(log_prob, z)),
            particles.x.flatten(0, 1),
            evidence.log_weights,
            log_z=evidence.log_z,
            stderr=evidence.log_z_stderr,
            generator=generator,
            num_probes=min(self.num_probes, len(evidence.log_weights)),
        )
        spent = Cost(*(after - earlier for after, earlier in zip(self._spent(), before, strict=True)))
        values = {f"probe_{name}": value for name, value in found._asdict().items()}
        return replace(evidence, probe_cost=spent, **values)

    def _so_far(self, error: SamplingError, start: float, before: Cost) -> Evidence | None:
        if error.particles is None or error.path is None:
            return None
        unknown = torch.full((len(error.path.ess),), torch.nan, dtype=torch.float64)
        return self._evidence(Draw(error.particles, error.path, unknown), start, before)

    def _evidence(self, drawn: Draw, start: float, before: Cost) -> Evidence:
        particles, path, times, predicted = drawn
        x = self.affine(particles.x.flatten(0, 1))
        spent = self._spent()
        return Evidence.from_run(
            particles,
            path,
            self.target.constrain(x).unflatten(0, particles.x.shape[:2]),
            times=times,
            seconds=time.perf_counter() - start,
            cost=Cost(*(after - earlier for after, earlier in zip(spent, before, strict=True))),
            whitening_cost=Cost(*self.whitening_evaluations.tolist()),
            training_cost=Cost(*self.training_evaluations.tolist()),
            predicted_variance=predicted,
            parameters=self.target.parameters_by_name(x),
        )
