"""Networks compiled by torch, where that pays and works."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

__all__ = ["Compile", "compile_networks", "leave_compiled"]

Compile = Literal["auto"] | bool
"""Whether to compile: "auto" does on CUDA devices, and not on CPUs, where it was measured to gain little."""


def compile_networks(
    networks: Sequence[nn.Module], choice: Compile, device: torch.device, trial: Callable[[], object]
) -> bool:
    """Compile networks in place, so that neither their weights nor their checkpoints change.

    Args:
        networks: what to compile.
        choice: see `Compile`.
        device: where the networks run.
        trial: a call of every network. Where the compiler fails in it, which needs a C++ compiler on CPUs and Triton on
            CUDA devices, there is one warning and the networks stay as they were.

    Returns:
        whether they are compiled.
    """
    if not (device.type == "cuda" if choice == "auto" else choice):
        return False
    try:
        for network in networks:
            network.compile()
        trial()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        leave_compiled(networks)
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        rank_zero_warn(f"training without torch.compile, which failed: {reason}; compile=false goes without it unasked")
        return False
    return True


def leave_compiled(networks: Sequence[nn.Module]) -> None:
    """Let networks run as they are written again: on another device they would be compiled anew."""
    for network in networks:
        network._compiled_call_impl = None
