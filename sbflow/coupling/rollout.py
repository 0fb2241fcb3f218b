"""Simulation of a bridge network in both directions at once."""

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sbflow.integrator import euler_maruyama, simulate, simulate_adams
from sbflow.process import Brownian
from sbflow.tensor import Generators

__all__ = ["Method", "Rollout"]

Method = Literal["adams", "euler"]
"""Adams–Bashforth of two steps or Euler–Maruyama: orders 2 and 1, each with one evaluation of the network a step."""


class Rollout:
    """Paths of a drift network, each row in its own direction and clock.

    Args:
        drift: called with (x, u ``[1]``, direction ``[n]``).
        process: Brownian reference.
        times: own-clock grid from 0 to 1.
        last_noise: whether the last step draws noise.
        method: how a step is made.
        batch_size: rows per call of the network, the last call padded to as many; all at once by default. Noise is
            drawn for all rows together, so that the result does not depend on it.
    """

    def __init__(
        self,
        drift: nn.Module,
        process: Brownian,
        times: Float[Tensor, " k"],
        *,
        last_noise: bool = True,
        method: Method = "euler",
        batch_size: int | None = None,
    ) -> None:
        if method not in ("adams", "euler"):
            raise ValueError(f"method must be 'adams' or 'euler', got {method!r}")
        self.drift = drift
        self.process = process
        self.times = times
        self.last_noise = last_noise
        self.method = method
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(
        self,
        x: Float[Tensor, "n *event"],
        direction: Int[Tensor, " n"],
        *,
        generator: Generators = None,
        return_path: bool = False,
    ) -> Tensor:
        """End of each path ``[n, *event]``, or all its states ``[k, n, *event]``."""
        drift = self.drift.eval()
        field = in_pieces(lambda x, u, direction: drift(x, u.to(x.dtype).reshape(1), direction), self.batch_size)
        along, diffusion, times = lambda x, u: field(x, u, direction), self.process.diffusion, self.times.to(x.device)
        options = {"last_noise": self.last_noise, "return_path": return_path, "generator": generator}
        if self.method == "adams":
            return simulate_adams(along, diffusion, x, times, **options)
        return simulate(euler_maruyama(along, diffusion), x, times, **options)

    def frozen(self) -> "Rollout":
        """The same with a copy of the network as it stands."""
        frozen = copy(self)
        frozen.drift = deepcopy(self.drift).requires_grad_(False)
        return frozen


Field = Callable[[Tensor, Tensor, Tensor], Tensor]


def in_pieces(field: Field, batch_size: int | None) -> Field:
    """Evaluate a field (x, t, direction) by pieces of one size: the rows of a piece are computed alike wherever it is.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size is None:
        return field
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")

    def piecewise(x: Tensor, t: Tensor, direction: Tensor) -> Tensor:
        # the last piece is filled up with the first row: kernels round differently for other sizes
        rows = torch.arange(-(-len(x) // batch_size) * batch_size, device=x.device)
        rows = torch.where(rows < len(x), rows, 0)
        pieces = [field(x[piece], t, direction[piece]) for piece in rows.split(batch_size)]
        return torch.cat(pieces)[: len(x)]

    return piecewise
