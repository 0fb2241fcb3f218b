"""Stochastic stepping along a grid of times."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.integrator.kernel import Kernel
from sbflow.tensor import Generators

__all__ = ["simulate"]


def simulate(
    kernel: Kernel,
    x: Float[Tensor, "n *event"],
    times: Float[Tensor, " k"],
    *,
    last_noise: bool = True,
    return_path: bool = False,
    generator: Generators = None,
) -> Tensor:
    """Apply a kernel along a grid of times.

    Args:
        kernel: law of one step.
        x: states at ``times[0]``.
        times: monotone grid, in either direction.
        last_noise: draw the last step from its law; False takes its mean, which suits images.
        return_path: return every state, shape ``[k, n, *event]``, in place of the last one ``[n, *event]``.
        generator: source of the noise.
    """
    path = [x]
    last = len(times) - 2
    for k, (t, s) in enumerate(pairwise(times)):
        law = kernel(x, t, s)
        x = law.sample(generator) if last_noise or k < last else law.mean
        if return_path:
            path.append(x)
    return torch.stack(path) if return_path else x
