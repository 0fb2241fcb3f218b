"""Calls of a density in pieces, of so many points or of as many as a given memory holds."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Pieces", "check_chunk_size", "memory_bytes"]

Result = TypeVar("Result")

UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
# the larger one first: what a first call alone makes is then counted as if every point made it
PROBES = 8, 1


def check_chunk_size(chunk_size: int | str | None) -> None:
    """Refuse what is neither a number of points nor a memory.

    Raises:
        ValueError: it is not.
    """
    if isinstance(chunk_size, str):
        memory_bytes(chunk_size)
    elif chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"chunk_size must be null, a number from 1 on or a memory such as '2GB', got {chunk_size}")


def memory_bytes(memory: str) -> int:
    """Bytes of a memory.

    >>> memory_bytes("1.5GB")
    1500000000

    Raises:
        ValueError: it is not a number with kB, MB or GB.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(kB|MB|GB)\s*", memory)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"chunk_size must be null, a number from 1 on or a memory such as '2GB', got {memory!r}")
    return int(float(match[1]) * UNITS[match[2]])


class Pieces:
    """Calls of a function on pieces of its points, in order; each point is in one piece.

    Within a memory, the first time with enough points begins with two small calls, and what their tensor operations
    make is counted as if nothing of it were freed. Later calls are sized by it. Not seen is what an operation needs
    inside of itself, and what is made outside of torch, by NumPy say.

    Args:
        chunk_size: points of a piece, or the memory of a call (``"500MB"``); None is one piece.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, chunk_size: int | str | None) -> None:
        check_chunk_size(chunk_size)
        self.chunk_size = chunk_size
        self.size: int | None = None if isinstance(chunk_size, str) else chunk_size

    def __call__(self, call: Callable[[Tensor], Result], x: Float[Tensor, "n d"]) -> list[Result]:
        """Results on the pieces.

        Args:
            call: the function, of memory linear in the number of points.
            x: points.

        Raises:
            ValueError: the memory does not hold a call with one point.
        """
        begun: list[Result] = []
        if isinstance(self.chunk_size, str) and self.size is None:
            if len(x) <= sum(PROBES):
                return [call(x)]
            *probes, x = torch.split(x, [*PROBES, len(x) - sum(PROBES)])
            begun = self._measure(call, probes, memory_bytes(self.chunk_size))
        return begun + [call(piece) for piece in torch.split(x, self.size or max(1, len(x)))]

    def _measure(self, call: Callable[[Tensor], Result], probes: list[Tensor], memory: int) -> list[Result]:
        """Results on the probes, whose memory gives the size of all further pieces."""
        results, counts = [], []
        for probe in probes:
            with AllocatedBytes() as allocated:
                results.append(call(probe))
            counts.append(allocated.count)
        each = max(1.0, (counts[0] - counts[1]) / (PROBES[0] - PROBES[1]))
        size = (memory - max(0.0, counts[1] - each)) // each
        if size < 1:
            raise ValueError(f"chunk_size={self.chunk_size} is too little: one point takes up to {each / 1e6:.3g} MB")
        self.size = int(size)
        return results


class AllocatedBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations make; views make none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and add what it made."""
        result = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if _has_storage(leaf)}
        for leaf in tree_leaves(result):
            if _has_storage(leaf) and leaf.untyped_storage().data_ptr() not in known:
                self.count += leaf.untyped_storage().nbytes()
        return result


def _has_storage(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout == torch.strided
