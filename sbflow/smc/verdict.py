"""Whether an estimate can be relied on, in words."""

import math
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Symptoms", "verdict"]

RELIABLE = "reliable"
FEWEST = 50
"""Particles of all runs below which neither errors nor tails can be told."""


class Symptoms(NamedTuple):
    """What is known against an estimate.

    Attributes:
        complete: whether the run reached its end.
        rounding: of log γ by its floating-point numbers, in nats.
        stderr: standard error of log Z.
        scatter: standard deviation of log Ẑ between runs; NaN for one run.
        disagreement: ``scatter`` over what the runs' own standard errors lead to expect; NaN for one run.
        num_runs: independent runs.
        num_ancestors: distinct first-generation ancestors left, in the worst run.
        num_particles: particles per run.
        tail: Pareto k of the final weights.
        least_ess: smallest effective sample size on the way, as a share of the particles.
        least_ess_time: when that was.
        acceptance: mean acceptance of the Markov moves; NaN where there were none.
        missed: how much larger log Z is by a probe that reaches further, where that can be told; else 0.
    """

    complete: bool
    rounding: float
    stderr: float
    scatter: float
    disagreement: float
    num_runs: int
    num_ancestors: int
    num_particles: int
    tail: float
    least_ess: float
    least_ess_time: float
    acceptance: float
    missed: float


def verdict(symptoms: Symptoms) -> str:
    """``"reliable"``, or what to do and why, by the gravest symptom.

    It is no proof: runs that all miss the same mode agree with each other and look well, and a probe may miss it too.
    """
    return next(_complaints(symptoms), RELIABLE)


def _complaints(s: Symptoms) -> Iterator[str]:
    """Gravest first."""
    if not s.complete:
        yield "the run broke down on the way; its samples are not yet those of the target"
    if s.rounding > 0.05:
        yield (
            f"subtract a constant from log_prob, or work in float64, because values as large as these are rounded by "
            f"{s.rounding:.2g}"
        )
    if s.num_particles * s.num_runs < FEWEST:
        yield f"rerun with more particles because {s.num_particles * s.num_runs} in all say too little of the spread"
    if s.missed > 0:
        yield (
            "rerun with another whitening (laplace, full_rank, standard) or annealed SMC because points further out "
            f"find log Z {s.missed:.3g} larger: a tail, an arm or a mode was missed, or the integral is infinite"
        )
    if s.scatter > 0.5:
        yield f"rerun with more steps or a trained potential because log Z scatters by {s.scatter:.2g} between runs"
    if not math.isfinite(s.stderr):
        yield "rerun with more particles or replicates because one particle says nothing of its spread"
    if s.stderr > 0.5:
        yield f"rerun with more steps or a trained potential because the standard error of log Z is {s.stderr:.2g}"
    # five standard errors of a sample variance over what is expected
    if s.num_runs > 2 and s.disagreement**2 > 1 + 5 * math.sqrt(2 / (s.num_runs - 1)):
        yield (
            f"rerun with another whitening or more steps because the runs differ {s.disagreement:.1f} times as much as "
            "each says of itself: some miss a part of the target"
        )
    if s.num_ancestors < min(20, s.num_particles):
        yield (
            f"rerun with more steps or particles because only {s.num_ancestors} of the first particles have descendants"
        )
    if s.tail > 0.7:
        yield f"rerun with more steps or a wider whitening because the weights are heavy-tailed (Pareto k {s.tail:.2f})"
    if s.least_ess < 0.01:
        yield (
            f"rerun with more steps because the effective sample size fell to {s.least_ess:.1%} of the particles "
            f"at time {s.least_ess_time:.3g}"
        )
    if s.acceptance < 0.1:
        yield f"rerun with smaller moves because only {s.acceptance:.0%} of them were accepted"
