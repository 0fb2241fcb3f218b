"""The record of a sampler's run that a user reads."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.smc.particles import (
    Particles,
    SMCPath,
    effective_sample_size,
    log_mean_exp,
    relative_variance,
)

__all__ = ["Evidence"]


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
        num_ancestors: distinct first-generation ancestors left, the smallest over the runs; with few of them the
            single-run standard error means nothing.
        ess_path: effective sample size of each run at each time ``[k, r]``.
        num_steps: steps of the sampler.
        num_particles: particles per run, n.
        density_evaluations: evaluations of γ, all runs together, the fit of the whitening apart.
        seconds: wall-clock time of the runs.
    """

    log_z: float
    log_z_stderr: float
    samples: Float[Tensor, "m d"]
    log_weights: Float[Tensor, " m"]
    ess: float
    log_z_replicates: Float[Tensor, " r"]
    num_ancestors: int
    ess_path: Float[Tensor, "k r"]
    num_steps: int
    num_particles: int
    density_evaluations: int
    seconds: float

    @classmethod
    def from_run(
        cls, particles: Particles, path: SMCPath, samples: Float[Tensor, "r n d"], *, evaluations: int, seconds: float
    ) -> "Evidence":
        """Summarise a run.

        Args:
            particles: final particles.
            path: diagnostics of the run.
            samples: positions of the particles in the target's own coordinates.
            evaluations: evaluations of γ.
            seconds: wall-clock time.
        """
        log_z = particles.log_z
        # every run's particles count by its own estimate of Z: the pooled weights stay proper
        pooled = (particles.log_weights + log_z[:, None]).flatten()
        log_weights = pooled - torch.logsumexp(pooled, 0)
        return cls(
            log_z=float(log_mean_exp(log_z)),
            log_z_stderr=_standard_error(particles),
            samples=samples.flatten(0, 1),
            log_weights=log_weights,
            ess=float(effective_sample_size(log_weights)),
            log_z_replicates=log_z,
            num_ancestors=min(len(row.unique()) for row in particles.ancestors),
            ess_path=path.ess,
            num_steps=len(path.ess) - 1,
            num_particles=particles.x.shape[1],
            density_evaluations=evaluations,
            seconds=seconds,
        )

    @property
    def warning(self) -> str | None:
        """Why the estimate should not be trusted as it stands, or None.

        A small standard error is no proof: runs that all miss the same mode agree with each other.
        """
        cure = "take more steps or particles, another whitening, or train the potential"
        if len(self.log_z_replicates) > 1 and self.log_z_replicates.std() > 0.5:
            return f"unreliable: log Z scatters by {self.log_z_replicates.std():.2g} between runs; {cure}"
        if self.log_z_stderr > 0.5:
            return f"unreliable: the standard error of log Z is {self.log_z_stderr:.2g}; {cure}"
        if self.num_ancestors < min(20, self.num_particles):
            return f"unreliable: only {self.num_ancestors} of the first particles have descendants; {cure}"
        if not math.isfinite(self.log_z_stderr):
            return "no standard error: take more particles or replicates"
        return None

    def summary(self) -> dict[str, Any]:
        """Everything but the samples, as plain numbers and lists."""
        replicates = self.log_z_replicates
        return {
            "log_z": self.log_z,
            # strict JSON knows no NaN
            "log_z_stderr": self.log_z_stderr if math.isfinite(self.log_z_stderr) else None,
            "log_z_mean": float(replicates.mean()),
            "log_z_sd": float(replicates.std()) if len(replicates) > 1 else None,
            "warning": self.warning,
            "ess": self.ess,
            "num_ancestors": self.num_ancestors,
            "num_steps": self.num_steps,
            "num_particles": self.num_particles,
            "replicates": len(replicates),
            "density_evaluations": self.density_evaluations,
            "seconds": self.seconds,
            "log_z_replicates": replicates.tolist(),
            "ess_path": self.ess_path.tolist(),
        }

    def save(self, folder: Path) -> None:
        """Write ``evidence.json``, and the weighted samples to ``samples.pt`` (keys ``samples``, ``log_weights``)."""
        (folder / "evidence.json").write_text(json.dumps(self.summary(), indent=2) + "\n")
        torch.save({"samples": self.samples.cpu(), "log_weights": self.log_weights.cpu()}, folder / "samples.pt")

    def __str__(self) -> str:
        return (
            f"log Z = {self.log_z:.4f} ± {self.log_z_stderr:.4f}, ESS {self.ess:.0f} of {len(self.log_weights)}, "
            f"{self.num_steps} steps, {self.density_evaluations} density evaluations, {self.seconds:.1f} s"
        )


def _standard_error(particles: Particles) -> float:
    """Standard error of log mean Ẑ, to first order that of mean Ẑ over Z."""
    log_z = particles.log_z
    if len(log_z) == 1:
        if particles.log_weights.shape[-1] == 1:
            return math.nan  # one draw says nothing of its spread
        return math.sqrt(float(relative_variance(particles.log_weights, particles.ancestors)))
    relative = torch.exp(log_z - log_mean_exp(log_z))
    return float(relative.std()) / math.sqrt(len(log_z))
