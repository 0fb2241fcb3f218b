"""Where to compute."""

import torch

__all__ = ["find_device"]


def find_device(name: str) -> torch.device:
    """Device of that name; ``"auto"`` is the first CUDA device, or else the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name} is not available here; allowed: auto, cpu, cuda, cuda:N, mps") from error
