"""Stochastic stepping along a grid of times."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.gaussian import Gaussian
from sbflow.integrator.kernel import Kernel
from sbflow.tensor import Generators, expand_to

__all__ = ["simulate"]


def simulate(
    kernel: Kernel,
    x: Float[Tensor, "n *event"],
    times: Float[Tensor, " k"],
    *,
    last_noise: bool = True,
    return_path: bool = False,
    generator: Generators = None,
    noise: Float[Tensor, "steps n *event"] | None = None,
) -> Tensor:
    """Apply a kernel along a grid of times.

    Args:
        kernel: law of one step.
        x: states at ``times[0]``.
        times: monotone grid, in either direction.
        last_noise: draw the last step from its law; False takes its mean, which suits images.
        return_path: return every state, shape ``[k, n, *event]``, in place of the last one ``[n, *event]``.
        generator: source of the noise.
        noise: standard normal noise of every step, in place of ``generator``; that of a last step without noise is
            not looked at.

    Raises:
        ValueError: there is not one noise for each step.
    """
    if noise is not None and len(noise) != len(times) - 1:
        raise ValueError(f"noise must hold one draw for each of the {len(times) - 1} steps, got {len(noise)}")
    path = [x]
    last = len(times) - 2
    for k, (t, s) in enumerate(pairwise(times)):
        law = kernel(x, t, s)
        noisy = last_noise or k < last
        x = _place(law, generator, None if noise is None else noise[k]) if noisy else law.mean
        if return_path:
            path.append(x)
    return torch.stack(path) if return_path else x


def _place(law: Gaussian, generator: Generators, noise: Tensor | None) -> Tensor:
    """A draw from the law, or the one that this noise stands for."""
    return law.sample(generator) if noise is None else law.mean + expand_to(law.std, law.mean) * noise
