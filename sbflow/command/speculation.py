"""What ``sbflow translate sampler=speculative`` adds: a tally of what speculation cost."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sbflow.algorithm import Direction
from sbflow.integrator import SpeculationInfo

__all__ = ["CountedSpeculation", "describe"]


class CountedSpeculation:
    """A model whose translations are speculative, and counted.

    Args:
        algorithm: the model.
    """

    def __init__(self, algorithm: Any) -> None:
        self.algorithm = algorithm
        self.event_shape: tuple[int, ...] = algorithm.event_shape
        self.device: torch.device = algorithm.device
        self.costs: list[SpeculationInfo] = []

    def translate(self, x: Tensor, direction: Direction, *, sampler: str, method: None, **options: Any) -> Tensor:
        """As the model's, by this one sampler."""
        end, info = self.algorithm.translate_speculatively(x, direction, **options)
        self.costs.append(SpeculationInfo(*(part.cpu() if isinstance(part, Tensor) else part for part in info)))
        return end


def describe(costs: Sequence[SpeculationInfo]) -> str:
    """One line: calls in sequence, rows beside them, and the share of draft steps that were kept, by their offset."""
    info = SpeculationInfo.combined(costs)
    calls = info.sequential_calls.double().mean().item()
    kept = " ".join(f"{share:.2f}" for share in (info.accepted / info.tried.clamp_min(1)).tolist())
    return (
        f"speculation: {calls:.1f} calls in sequence for {info.steps} steps, {info.rows_per_step:.2f} rows a step, "
        f"kept by offset {kept}"
    )
