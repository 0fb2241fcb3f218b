"""Runs that were made apart, by processes that know nothing of each other, as one record."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sbflow.smc.evidence import Cost, Evidence, pooled_error
from sbflow.smc.pareto import pareto_k
from sbflow.smc.particles import effective_sample_size, log_mean_exp

__all__ = ["combine"]


def combine(islands: Sequence[Evidence]) -> Evidence:
    r"""One record of all runs of several others: particles that were never resampled together.

    .. math:: \hat Z = \frac{1}{r} \sum_{i=1}^{r} \hat Z_i, \qquad W_{ij} \propto \hat Z_i \, w_{ij},

    with :math:`w_{ij}` the normalised weights of run i. Ẑ is unbiased since every :math:`\hat Z_i` is, and so is
    Ẑ times the weighted mean of any function of the samples.

    Args:
        islands: records of independent runs of one sampler, of equally many particles and with the same levels.
            Evaluations by the runs are added up, those of whitening and training are the first one's, as each island
            repeats them or has them from the same checkpoint, and so is ``quality``; seconds are the slowest one's,
            the probe is that of all their points.

    Raises:
        ValueError: there are none, or their particles or levels differ.

    References:
        Vergé, Dubarry, Del Moral, Moulines, "On parallel implementation of sequential Monte Carlo methods: the island
        particle model", 2015.
    """
    _check(islands)
    first = islands[0]
    if len(islands) == 1:
        return first
    log_z = torch.cat([one.log_z_replicates for one in islands])
    # an island's own weights are normalised over its runs: they go by its sum of Ẑ
    pooled = torch.cat([one.log_weights + torch.logsumexp(one.log_z_replicates, 0) for one in islands])
    log_weights = pooled - torch.logsumexp(pooled, 0)
    rounding = max(one.rounding for one in islands)
    runs = [len(one.log_z_replicates) for one in islands]
    return Evidence(
        log_z=float(log_mean_exp(log_z)),
        log_z_stderr=pooled_error(log_z, rounding),
        rounding=rounding,
        samples=torch.cat([one.samples for one in islands]),
        log_weights=log_weights,
        quality=first.quality,
        ess=float(effective_sample_size(log_weights)),
        log_z_replicates=log_z,
        log_z_stderr_replicates=torch.cat([one.log_z_stderr_replicates for one in islands]),
        elbo=sum(n * one.elbo for n, one in zip(runs, islands, strict=True)) / sum(runs),
        pareto_k=pareto_k(log_weights),
        num_ancestors=min(one.num_ancestors for one in islands),
        times=first.times,
        ess_path=_beside("ess_path", islands),
        log_z_path=_beside("log_z_path", islands),
        resampled=_beside("resampled", islands),
        acceptance=_beside("acceptance", islands),
        num_nan=sum(one.num_nan for one in islands),
        num_particles=first.num_particles,
        seconds=max(one.seconds for one in islands),
        cost=_total("cost", islands),
        whitening_cost=first.whitening_cost,
        training_cost=first.training_cost,
        weight_variance=sum(n * one.weight_variance for n, one in zip(runs, islands, strict=True)) / sum(runs),
        predicted_variance=first.predicted_variance,
        **_probes([one for one in islands if math.isfinite(one.probe_log_z)]),
        probe_cost=_total("probe_cost", islands),
        parameters={name: torch.cat([one.parameters[name] for one in islands]) for name in first.parameters},
    )


def _probes(islands: Sequence[Evidence]) -> dict[str, float]:
    """The mean of the probes' estimates, as one of all their points."""
    if not islands:
        return {}
    log_z = torch.tensor([one.probe_log_z for one in islands], dtype=torch.float64)
    shares = log_z.softmax(0)
    return {
        "probe_log_z": float(log_mean_exp(log_z)),
        "probe_stderr": math.hypot(*(float(p) * one.probe_stderr for p, one in zip(shares, islands, strict=True))),
        "probe_ess": 1 / sum(float(p) ** 2 / one.probe_ess for p, one in zip(shares, islands, strict=True)),
    }


def _total(name: str, islands: Sequence[Evidence]) -> Cost:
    return Cost(*(sum(kind) for kind in zip(*(getattr(one, name) for one in islands), strict=True)))


def _beside(name: str, islands: Sequence[Evidence]) -> Tensor:
    """Diagnostics by level ``[k, r]`` of all runs."""
    return torch.cat([getattr(one, name) for one in islands], dim=1)


def _check(islands: Sequence[Evidence]) -> None:
    if not islands:
        raise ValueError("islands must hold at least one record, got none")
    first = islands[0]
    for one in islands[1:]:
        if one.num_particles != first.num_particles:
            raise ValueError(
                f"islands must have equally many particles, got {first.num_particles} and {one.num_particles}"
            )
        if one.times.shape != first.times.shape or not one.times.allclose(first.times, equal_nan=True):
            raise ValueError(f"islands must have the same levels, got {len(first.times)} and {len(one.times)} of them")
