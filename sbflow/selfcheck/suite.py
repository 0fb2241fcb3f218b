"""All closed-form checks in a row."""

from collections.abc import Callable, Iterator

import torch

from sbflow.selfcheck import bridge, particles, precision
from sbflow.selfcheck.measurement import Measurement

__all__ = ["check", "measurements"]

CHECKS: tuple[Callable[[torch.device, int], Iterator[Measurement]], ...] = (
    bridge.closed_form,
    bridge.bridge_matching_minimum,
    bridge.simulated_bridge,
    bridge.discretised_flow,
    particles.resampling_counts,
    particles.resampling_evidence,
    particles.exact_potential,
    particles.annealed_evidence,
    precision.single_precision,
    precision.other_device,
)


def check(*, device: str | torch.device = "cpu", seed: int = 0) -> list[Measurement]:
    """Measure what has a closed form, on this machine, in well under a minute.

    Args:
        device: where the samples are.
        seed: decides the Gaussians of the bridges and all noise, at least 0.

    Raises:
        ValueError: the seed is negative.
    """
    return list(measurements(device=device, seed=seed))


def measurements(*, device: str | torch.device = "cpu", seed: int = 0) -> Iterator[Measurement]:
    """The same one by one, as they come; a check that breaks down is a failed one and does not stop the others."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    place = torch.device(device)
    for one in CHECKS:
        try:
            yield from one(place, seed)
        except Exception as error:
            # whatever the machine or a changed part raises, the other checks are still worth having
            yield Measurement.broken(one.__name__.replace("_", " "), error)
