"""The upper bound of log Z that exact samples give."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.smc.guided import GuidedDenoising

__all__ = ["upper_bounds"]


@torch.no_grad()
def upper_bounds(
    kernel: GuidedDenoising,
    x0: Float[Tensor, "n d"],
    times: Float[Tensor, " k"],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " n"]:
    """Log importance weights of noised exact samples, whose mean is an upper bound of log Z (EUBO).

    Exact samples are noised along the grid; the weight of such a path is that of the sampler that would walk it
    backwards. It exceeds log Z on average by the divergence from the target's path law to the sampler's, and so tells
    of modes that the sampler never visits, which no run of the sampler itself can show.

    Args:
        kernel: the moves of the sampler.
        x0: exact samples of the target in whitened coordinates.
        times: decreasing grid that ends at 0.
        generator: source of the noise.

    References:
        Blessing, Jia, Esslinger, Vargas, Neumann, "Beyond ELBOs: a large-scale evaluation of variational methods for
        sampling", 2024.
    """
    increasing = times.flip(0)
    x_s, field_s = x0, kernel.field(x0, increasing[0])
    total = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    for s, t in pairwise(increasing):
        x_t = kernel.noising(x_s, field_s, s, t).sample(generator)
        field_t = kernel.field(x_t, t)
        total += kernel.log_weight(x_t, field_t, kernel.propose(x_t, field_t, t, s), x_s, field_s, t, s)
        x_s, field_s = x_t, field_t
    return total + field_s.log_g.double()
