"""Stochastic stepping of second order at the price of Euler's."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.integrator.kernel import VectorField
from sbflow.tensor import Generators, randn_like

__all__ = ["simulate_adams"]


def simulate_adams(
    drift: VectorField,
    diffusion: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n *event"],
    times: Float[Tensor, " k"],
    *,
    last_noise: bool = True,
    return_path: bool = False,
    generator: Generators = None,
) -> Tensor:
    """Simulate dX = drift dt + diffusion dB by the two-step Adams–Bashforth scheme, one evaluation of the drift a step.

    X_{k+1} = X_k + h (f_k + ρ (f_k − f_{k−1})) + σ √h Z with ρ = h / (2 h_before); the first step is Euler's. What the
    noise of a step adds to the drift within that step, ½ h σ √h ∇f Z, comes one step late, with the extrapolation: only
    the last step never gets it. So where the noise depends on neither state nor time the moments are right to order h²,
    as those of a step of Heun's with two evaluations, while Euler–Maruyama is right to order h. The law of a step
    depends on the step before: for particle weights and speculation take the kernel `euler_maruyama`.

    Args:
        drift: field in the direction of the grid.
        diffusion: noise per square root of time, the same for all states; called with the times ``[k - 1]`` that steps
            begin at.
        x: states at ``times[0]``.
        times: increasing grid.
        last_noise: draw noise in the last step. Without, which suits images, that step is Euler's: it ends in the mean
            of what the drift leads to, and all noise is gone.
        return_path: return every state, shape ``[k, n, *event]``, in place of the last one ``[n, *event]``.
        generator: source of the noise.

    References:
        Buckwar, Winkler, "Multistep methods for SDEs and their application to problems with small noise", 2006.
    """
    times = times.to(x.device)
    path, steps = [x], times.diff()
    # the numbers of all steps at once: one at a time they would cost as much as a step of a small network
    sizes, scales = steps.to(x.dtype), (diffusion(times[:-1]) * steps.sqrt()).to(x.dtype)
    weights = (1 + steps[1:] / (2 * steps[:-1])).to(x.dtype)
    before: Tensor | None = None
    for k, t in enumerate(times[:-1]):
        slope = value = drift(x, t)
        noisy = last_noise or k < len(steps) - 1
        if before is not None and noisy:
            slope = torch.lerp(before, value, weights[k - 1])
        x, before = torch.addcmul(x, sizes[k], slope), value
        if noisy:
            x = torch.addcmul(x, scales[k], randn_like(x, generator))
        if return_path:
            path.append(x)
    return torch.stack(path) if return_path else x
