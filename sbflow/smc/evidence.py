"""The record of a sampler's run that a user reads."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from sbflow.smc.pareto import pareto_k
from sbflow.smc.particles import Particles, SMCPath, effective_sample_size, log_mean_exp, relative_variance
from sbflow.smc.probe import Probe
from sbflow.smc.resampling import systematic
from sbflow.smc.verdict import RELIABLE, Symptoms, verdict
from sbflow.tensor import seeded_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Cost", "Evidence"]


class Cost(NamedTuple):
    """Evaluations of the target; one point counts as one.

    Attributes:
        density: of γ.
        gradient: of ∇γ, each made together with one of γ.
    """

    density: int = 0
    gradient: int = 0


NO_COST = Cost()

UNLIKELY = 100
"""By Markov's inequality an estimate without bias exceeds what it estimates by this factor in one case of it."""

ENOUGH = 10
"""Effective sample size of a probe from which on its standard error is believed."""

SURE = 3.5
"""Joint standard errors between run and probe; a normal law goes beyond in one case of four thousand."""


@dataclass(frozen=True)
class Evidence:
    """Estimate of log Z with its error, and the weighted samples, from r independent runs of n particles.

    Attributes:
        log_z: log of the mean of Ẑ over the runs, in nats; Ẑ is unbiased for Z.
        log_z_stderr: standard error of ``log_z``: from the spread of Ẑ over the runs where there are several, else
            from the genealogy of the single run.
        samples: particles of all runs, in the target's own coordinates ``[r n, d]``.
        log_weights: their normalised log-weights ``[r n]``, float64.
        ess: effective sample size of these weights, between 1 and r n.
        log_z_replicates: log Ẑ of each run ``[r]``, float64.
        log_z_stderr_replicates: standard error of each, from its own genealogy ``[r]``.
        elbo: mean over the runs of a lower bound of log Z, from the incremental weights.
        pareto_k: tail of ``log_weights``, see `sbflow.smc.pareto.pareto_k`.
        num_ancestors: first-generation ancestors left, the least over the runs; few make the single-run error void.
        times: time of each of the k levels of the run ``[k]``, decreasing to 0.
        ess_path: effective sample size of each run at each level ``[k, r]``.
        log_z_path: running estimate of log Z ``[k, r]``.
        resampled: whether the step into each level began with resampling ``[k, r]``.
        acceptance: share of accepted Markov moves in the step into each level ``[k, r]``, NaN where there were none.
        num_nan: times that the density was NaN at a particle, all runs together; such a particle gets no weight.
        num_particles: particles per run, n.
        seconds: wall-clock time of the runs.
        cost: evaluations of the target by all runs together.
        whitening_cost: evaluations by the fit of the whitening.
        training_cost: evaluations by training, and by the pilot runs that tune times, temperatures and moves.
        weight_variance: sum of the variances of the incremental log-weights over the steps, mean of the runs.
        predicted_variance: what the grid of times promises of it, see `sbflow.smc.schedule.TunedTimes`.
        parameters: the samples by name ``[r n, *shape]``.
        quality: distances to exact samples and the like, by name.
        rounding: of log γ at the particles by the floating-point numbers that they are made of, in nats; it is part of
            the standard errors, as many particles do not average it out.
        probe_log_z: log Z by points that reach further than the runs do, see `sbflow.smc.probe_beyond`; NaN where none
            has any weight, or none was drawn.
        probe_stderr: standard error of ``probe_log_z``.
        probe_ess: effective sample size of these points.
        probe_cost: evaluations by them.
    """

    log_z: float
    log_z_stderr: float
    samples: Float[Tensor, "m d"]
    log_weights: Float[Tensor, " m"]
    ess: float
    log_z_replicates: Float[Tensor, " r"]
    log_z_stderr_replicates: Float[Tensor, " r"]
    elbo: float
    pareto_k: float
    num_ancestors: int
    times: Float[Tensor, " k"]
    ess_path: Float[Tensor, "k r"]
    log_z_path: Float[Tensor, "k r"]
    resampled: Bool[Tensor, "k r"]
    acceptance: Float[Tensor, "k r"]
    num_nan: int
    num_particles: int
    seconds: float
    cost: Cost = NO_COST
    whitening_cost: Cost = NO_COST
    training_cost: Cost = NO_COST
    weight_variance: float = math.nan
    predicted_variance: float = math.nan
    parameters: dict[str, Tensor] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    rounding: float = 0.0
    probe_log_z: float = math.nan
    probe_stderr: float = math.nan
    probe_ess: float = math.nan
    probe_cost: Cost = NO_COST

    @classmethod
    def from_run(
        cls,
        particles: Particles,
        path: SMCPath,
        samples: Float[Tensor, "r n d"],
        *,
        times: Float[Tensor, " k"],
        seconds: float,
        **more: Any,
    ) -> "Evidence":
        """Summarise a run.

        Args:
            particles: final particles.
            path: diagnostics of the run.
            samples: positions of the particles in the target's own coordinates.
            times: time of each level of ``path``.
            seconds: wall-clock time.
            **more: the costs, ``predicted_variance``, ``parameters`` and ``quality``.
        """
        log_z = particles.log_z
        # every run's particles count by its own estimate of Z: the pooled weights stay proper
        pooled = (particles.log_weights + log_z[:, None]).flatten()
        log_weights = pooled - torch.logsumexp(pooled, 0)
        rounding = _rounding(particles)
        errors = torch.hypot(_standard_errors(particles), log_z.new_tensor(rounding))
        return cls(
            log_z=float(log_mean_exp(log_z)),
            log_z_stderr=pooled_error(log_z, rounding) if len(log_z) > 1 else float(errors[0]),
            rounding=rounding,
            samples=samples.flatten(0, 1),
            log_weights=log_weights,
            ess=float(effective_sample_size(log_weights)),
            log_z_replicates=log_z,
            log_z_stderr_replicates=errors,
            elbo=float(path.increment_mean.sum(0).mean()),
            pareto_k=pareto_k(log_weights),
            num_ancestors=min(len(row.unique()) for row in particles.ancestors),
            times=times,
            ess_path=path.ess,
            log_z_path=path.log_z,
            resampled=path.resampled,
            acceptance=path.acceptance,
            num_nan=int(path.num_nan.sum()),
            num_particles=particles.log_weights.shape[1],
            seconds=seconds,
            weight_variance=float(path.increment_variance[1:].nansum(0).mean()),
            **more,
        )

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of log Z.

        From several runs, ``log_z`` ± Student's t of r − 1 degrees of freedom times ``log_z_stderr``, which is the
        standard error of mean Ẑ divided by mean Ẑ (delta method). From one run, the normal quantile takes its place.
        """
        runs = len(self.log_z_replicates)
        quantile = float(stats.t.ppf(0.975, runs - 1) if runs > 1 else stats.norm.ppf(0.975))
        return self.log_z - quantile * self.log_z_stderr, self.log_z + quantile * self.log_z_stderr

    @property
    def num_steps(self) -> int:
        """Steps of the sampler."""
        return len(self.ess_path) - 1

    @property
    def density_evaluations(self) -> int:
        """Evaluations of γ by all runs together, preparations apart."""
        return self.cost.density

    @property
    def verdict(self) -> str:
        """``"reliable"``, or what to rerun and why, see `sbflow.smc.verdict.verdict`."""
        share = self.ess_path / self.num_particles
        least = int(share.amin(1).argmin())
        return verdict(
            Symptoms(
                complete=not bool(self.times.isnan().any()),
                rounding=self.rounding,
                stderr=self.log_z_stderr,
                scatter=self._scatter,
                disagreement=self._scatter / float(self.log_z_stderr_replicates.square().mean().sqrt() + 1e-6),
                num_runs=len(self.log_z_replicates),
                num_ancestors=self.num_ancestors,
                num_particles=self.num_particles,
                tail=self.pareto_k,
                least_ess=float(share[least].min()),
                least_ess_time=float(self.times[least]),
                acceptance=self.mean_acceptance,
                missed=self.missed,
            )
        )

    @property
    def warning(self) -> str | None:
        """Why the estimate should not be trusted as it stands, or None."""
        return None if self.verdict == RELIABLE else f"unreliable: {self.verdict}"

    @property
    def missed(self) -> float:
        """How much larger log Z is by the probe, in nats, where that can be told; else 0."""
        excess = self.probe_log_z - self.log_z
        probe = Probe(self.probe_log_z, self.probe_stderr, self.probe_ess)
        sure = self.probe_ess > ENOUGH and probe.exceeds(self.log_z, self.log_z_stderr, SURE)
        beyond_chance = math.log(UNLIKELY * (1 + SURE * self.log_z_stderr))
        return float(excess) if sure or excess > beyond_chance else 0.0

    @property
    def mean_acceptance(self) -> float:
        """Mean share of accepted Markov moves, NaN where there were none."""
        return float(self.acceptance.nanmean())

    @property
    def _scatter(self) -> float:
        return float(self.log_z_replicates.std()) if len(self.log_z_replicates) > 1 else math.nan

    def summary(self) -> dict[str, Any]:
        """Everything but the samples, as plain numbers and lists; None stands for what is not a finite number."""
        values = {
            "log_z_interval": self.interval,
            "log_z_mean": float(self.log_z_replicates.mean()),
            "log_z_sd": self._scatter,
            "verdict": self.verdict,
            "warning": self.warning,
            "num_steps": self.num_steps,
            "replicates": len(self.log_z_replicates),
            "mean_acceptance": self.mean_acceptance,
            "missed": self.missed,
        }
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Cost):
                values |= {f"{name.removesuffix('cost')}{kind}_evaluations": n for kind, n in value._asdict().items()}
            elif name not in _SAMPLES:
                values[name] = value
        return _plain(values)

    def save(self, folder: Path | str) -> None:
        """Write `summary` to ``evidence.json``, and to ``samples.pt`` the samples and the other tensors by name."""
        from sbflow.smc.evidence_file import write

        write(self, Path(folder))

    @staticmethod
    def load(folder: Path | str) -> "Evidence":
        """Read what `save` wrote; a number that was not finite comes back as NaN.

        Raises:
            FileNotFoundError: there is no evidence in the folder.
        """
        from sbflow.smc.evidence_file import read

        return read(Path(folder))

    def equally_weighted(self, seed: int = 0) -> dict[str, Tensor]:
        """Samples by name ``[r, n, *shape]``, each run resampled to equal weights.

        Args:
            seed: seed of the resampling.
        """
        runs, device = len(self.log_z_replicates), self.log_weights.device
        chosen = systematic(self.log_weights.reshape(runs, -1), seeded_generator(seed, device=device))
        rows = chosen + torch.arange(runs, device=device)[:, None] * self.num_particles
        return {name: value[rows] for name, value in (self.parameters or {"x": self.samples}).items()}

    def to_arviz(self, seed: int = 0) -> Any:
        """Equally weighted samples as ArviZ holds them, one chain per run: ``InferenceData``, from 1.0 a ``DataTree``.

        Raises:
            ModuleNotFoundError: ArviZ is not installed; the message says how to install it.
        """
        from sbflow.smc.inference_data import inference_data

        return inference_data(self, seed)

    def plot(self) -> "Figure":
        """Draw effective sample sizes and log Z along the path, and the marginals of the samples."""
        from sbflow.smc.portrait import portrait

        return portrait(self)

    def __str__(self) -> str:
        from sbflow.smc.report import report

        return report(self)


_SAMPLES = ("samples", "log_weights", "parameters")


def _plain(value: Any) -> Any:
    """Strict JSON knows neither tensors nor NaN."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _standard_errors(particles: Particles) -> Float[Tensor, " r"]:
    """Standard error of each run's log Ẑ, to first order that of Ẑ over Z."""
    errors = relative_variance(particles.family_changes).sqrt()
    # one draw says nothing of its spread
    return errors if particles.log_weights.shape[-1] > 1 else torch.full_like(errors, torch.nan)


def _rounding(particles: Particles) -> float:
    """Of the two terms of log g, which is log γ over the density of N(0, I), at a particle in the middle."""
    sizes = particles.field.log_g.abs() + 0.5 * particles.x.square().sum(-1)
    sizes = sizes[sizes.isfinite()]
    return torch.finfo(particles.x.dtype).eps * float(sizes.median()) if len(sizes) else 0.0


def pooled_error(log_z: Float[Tensor, " r"], rounding: float) -> float:
    """Standard error of log mean Ẑ of several runs, to first order that of mean Ẑ over its mean."""
    relative = torch.exp(log_z - log_mean_exp(log_z))
    return math.hypot(float(relative.std()) / math.sqrt(len(log_z)), rounding)
