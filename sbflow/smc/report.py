"""An estimate as a small table."""

import math
from collections.abc import Iterator

from sbflow.smc.evidence import Cost, Evidence

__all__ = ["report"]


def report(evidence: Evidence) -> str:
    """Headline and one line per diagnostic; what was not measured is left out."""
    low, high = evidence.interval
    runs = len(evidence.log_z_replicates)
    method = "from its genealogy" if runs == 1 else f"Student's t over {runs} runs"
    lines = [
        f"log Z = {evidence.log_z:.4f} ± {evidence.log_z_stderr:.4f}",
        *(f"  {name:<24}{text}" for name, text in _rows(evidence)),
    ]
    lines.insert(1, f"  {'95 % interval':<24}{low:.4f} to {high:.4f}, {method}")
    return "\n".join(lines)


def _rows(e: Evidence) -> Iterator[tuple[str, str]]:
    share = e.ess_path / e.num_particles
    least = int(share.amin(1).argmin())
    yield "ESS", f"{e.ess:.0f} of {len(e.log_weights)}, at least {float(share.min()):.0%} (time {e.times[least]:.3g})"
    yield "steps", f"{e.num_steps}, {float(e.resampled.double().sum(0).mean()):.3g} with resampling"
    yield "first particles left", f"{e.num_ancestors} of {e.num_particles}"
    if math.isfinite(e.pareto_k):
        yield "Pareto k", f"{e.pareto_k:.2f}"
    yield "ELBO", f"{e.elbo:.4f}"
    if math.isfinite(e.probe_log_z):
        yield "log Z further out", f"{e.probe_log_z:.4g} ± {e.probe_stderr:.2g}, ESS {e.probe_ess:.0f}"
    promised = "" if math.isnan(e.predicted_variance) else f", {e.predicted_variance:.3g} promised by the grid of times"
    if not math.isnan(e.weight_variance):
        yield "variances of the steps", f"{e.weight_variance:.3g} in all{promised}"
    if not math.isnan(e.mean_acceptance):
        yield "moves accepted", f"{e.mean_acceptance:.0%}"
    for name, value in e.quality.items():
        yield name.replace("_", " "), f"{value:.4g}"
    for name, cost in (
        ("evaluations", e.cost),
        ("to look further out", e.probe_cost),
        ("to whiten", e.whitening_cost),
        ("to train and tune", e.training_cost),
    ):
        if cost != Cost():
            yield name, f"{cost.density:,} of the density, {cost.gradient:,} of its gradient"
    if e.num_nan:
        yield "NaN", f"{e.num_nan} times; such a particle has no weight"
    yield "seconds", f"{e.seconds:.1f}"
    yield "verdict", e.verdict
