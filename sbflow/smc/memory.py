"""Calls of a density in pieces, of so many points or of as many as a given memory holds."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["check_chunk_size", "in_pieces", "memory_bytes"]

Result = TypeVar("Result")

UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
PROBES = 1, 8


def check_chunk_size(chunk_size: int | str | None) -> None:
    """Refuse what is neither a number of points nor a memory.

    Raises:
        ValueError: it is not.
    """
    if isinstance(chunk_size, str):
        memory_bytes(chunk_size)
    elif chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be null, at least 1 or a memory such as '2GB', got {chunk_size}")


def memory_bytes(memory: str) -> int:
    """Bytes of a memory.

    >>> memory_bytes("1.5GB")
    1500000000

    Raises:
        ValueError: it is not a number with kB, MB or GB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(kB|MB|GB)\s*", memory)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"chunk_size must be null, at least 1 or a memory such as '2GB', got {memory!r}")
    return int(float(match[1]) * UNITS[match[2]])


def in_pieces(call: Callable[[Tensor], Result], x: Float[Tensor, "n d"], chunk_size: int | str | None) -> list[Result]:
    """Results of a function on pieces of the points, in order; each point is in one piece.

    Within a memory, the first call takes 1 point and the second 8 (9 points or fewer go at once). All that their tensor
    operations make is counted as if nothing of it were freed, so the true peak of a later call lies below the memory;
    what is made outside of torch, by NumPy say, is not seen.

    Args:
        call: the function, of memory linear in the number of points.
        x: points.
        chunk_size: points of a piece, or the memory that a call may take (``"500MB"``); None is one piece.

    Raises:
        ValueError: the memory does not hold a call with one point.
    """
    if not isinstance(chunk_size, str):
        return [call(piece) for piece in torch.split(x, chunk_size or len(x))]
    if len(x) <= sum(PROBES):
        return [call(x)]
    results, counts = [], []
    *probes, rest = x.split((*PROBES, len(x) - sum(PROBES)))
    for probe in probes:
        with AllocatedBytes() as allocated:
            results.append(call(probe))
        counts.append(allocated.count)
    each = max(1.0, (counts[1] - counts[0]) / (PROBES[1] - PROBES[0]))
    size = (memory_bytes(chunk_size) - max(0.0, counts[0] - each)) // each
    if size < 1:
        raise ValueError(f"chunk_size={chunk_size} is too little: one point takes up to {counts[0] / 1e6:.3g} MB")
    return results + [call(piece) for piece in torch.split(rest, int(size))]


class AllocatedBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation, and add what it made."""
        result = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if _has_storage(leaf)}
        for leaf in tree_leaves(result):
            if _has_storage(leaf) and leaf.untyped_storage().data_ptr() not in known:
                self.count += leaf.untyped_storage().nbytes()
        return result


def _has_storage(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout == torch.strided
