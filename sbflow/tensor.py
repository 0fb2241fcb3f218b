"""The few tensor helpers that every layer shares."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Generators", "expand_to", "flat_sum", "randn_like", "seed_streams", "seeded_generator"]

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Source of randomness: the global one (None), one generator, or one per sample (results independent of batch size)."""


def expand_to(t: Tensor, x: Tensor) -> Tensor:
    """Append axes to a scalar or per-sample tensor so that it broadcasts against samples.

    Args:
        t: scalar, or one value per sample with shape ``[n]``.
        x: samples of shape ``[n, *event]``.

    >>> expand_to(torch.zeros(3), torch.zeros(3, 1, 4, 4)).shape
    torch.Size([3, 1, 1, 1])
    """
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


def flat_sum(x: Float[Tensor, "n *event"]) -> Float[Tensor, " n"]:
    """Sum over every axis but the first.

    >>> flat_sum(torch.ones(2, 3, 4))
    tensor([12., 12.])
    """
    return x.flatten(1).sum(1) if x.ndim > 1 else x


def seeded_generator(*keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Generator whose stream is a function of several non-negative integers (a seed, a rank, a step).

    The keys are hashed: a CPU generator reads only the lowest 32 bits of its seed, and the plain seed would repeat the
    stream of ``torch.manual_seed``, with which the caller may have drawn the samples themselves.
    """
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(keys).generate_state(1)[0]))


def seed_streams(seed: int, device: torch.device) -> None:
    """Seed the global stream and that of one device.

    ``torch.manual_seed`` seeds those of all devices: where none is in use it queues its call, with a trace of the
    stack, at a quarter of a millisecond and some memory each time.
    """
    torch.default_generator.manual_seed(seed)
    if device.type not in ("cpu", "meta"):
        torch.get_device_module(device).manual_seed(seed)


def randn_like(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise in the shape, dtype and device of ``x``.

    Noise is drawn on the device of the generator and moved to that of ``x``, so a CPU generator gives the same
    numbers whatever device the samples are on.

    Args:
        x: samples of shape ``[n, *event]``.
        generator: None for the global stream, one generator, or a sequence of n generators, one per sample.

    Raises:
        ValueError: the sequence does not hold one generator per sample.
    """
    if generator is None:
        return torch.randn_like(x)
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
    if len(generator) != len(x):
        raise ValueError(f"generator must hold one generator per sample: got {len(generator)} for {len(x)} samples")
    return torch.stack([randn_like(row, one) for row, one in zip(x, generator, strict=True)])
