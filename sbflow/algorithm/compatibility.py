"""What models must have in common for their densities or scores to be combined."""

from collections.abc import Sequence
from typing import Any

import torch

from sbflow.algorithm.translation import BridgeTranslation
from sbflow.process import uniform_times

__all__ = ["check_same_start", "check_shared"]

# in standard deviations and as a share of the variance: more than two samples of one law differ by
APART = 0.1


def check_shared(samplers: Sequence[Any]) -> None:
    """Refuse samplers whose potentials or scores are functions of different things.

    Raises:
        ValueError: whitenings or processes differ.
    """
    first, t = samplers[0], uniform_times(100)
    for other in samplers[1:]:
        pairs = ((first.affine.loc, other.affine.loc), (first.affine.scale, other.affine.scale))
        if not all(torch.equal(a, b) for a, b in pairs):
            raise ValueError(
                "samplers must share one whitening, got different ones: train them with whitening=fixed or standard"
            )
        if not torch.equal(first.process.noise_level(t), other.process.noise_level(t)):
            raise ValueError("samplers must share one process, got different noise schedules")


def check_same_start(one: BridgeTranslation, other: BridgeTranslation) -> None:
    """Refuse bridges of different processes, or whose data at the start differ by more than samples of one law do.

    Raises:
        ValueError: shapes, ε, or the moments of the starts differ.
    """
    if one.event_shape != other.event_shape or one.process.epsilon != other.process.epsilon:
        raise ValueError(
            f"bridges must share event_shape and epsilon, got {one.event_shape}, {one.process.epsilon:g} and "
            f"{other.event_shape}, {other.process.epsilon:g}"
        )
    variance = one.drift.variance[0]
    gap = (one.drift.mean[0] - other.drift.mean[0]).abs() / variance.sqrt()
    ratio = (other.drift.variance[0] / variance).log().abs()
    if gap.max() > APART or ratio.max() > APART:
        raise ValueError(
            f"bridges must share their start, got means {float(gap.max()):.2g} deviations apart and variances in the "
            f"ratio {float(ratio.max().exp()):.2g}"
        )
