"""Clocks: processor seconds, taken in turns, and the rate of matrix products that they are measured against."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

__all__ = ["interleaved", "matmul_rate", "processor_seconds"]


def processor_seconds(call: Callable[[], object], times: int = 1) -> float:
    """Seconds of the processor, all threads together, of one call: other programs count for less than on the wall."""
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int, times: int = 1) -> dict[str, float]:
    """Median processor seconds of each call; they take turns, so that a slow minute slows all of them.

    Args:
        calls: by name.
        repeats: turns.
        times: calls in a turn.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            found[name].append(processor_seconds(call, times))
    return {name: median(seconds) for name, seconds in found.items()}


def matmul_rate(dtype: torch.dtype = torch.float32, size: int = 1024, repeats: int = 5) -> float:
    """Operations a second of a product of square matrices, the floor's denominator."""
    a, b = (torch.randn(size, size, dtype=dtype) for _ in range(2))
    return 2 * size**3 / interleaved({"product": lambda: a @ b}, repeats)["product"]
