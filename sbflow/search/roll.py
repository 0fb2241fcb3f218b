r"""Rollouts of a bridge whose randomness is in the caller's hand.

A rollout is a function of its input and of its noise, one standard normal draw per step, so that a search may keep,
vary and replay it. Time is the direction's own clock, from 0 to 1:

.. math:: x_{k+1} = x_k + Δ_k f(t_k, x_k) + \sqrt{ε Δ_k} z_k.

A coarse rollout follows the same Brownian path with fewer steps: its noise over a cell is
:math:`Σ \sqrt{Δ_k} z_k / \sqrt{Σ Δ_k}`. Coarse paths, the renoising by bridges and the look-ahead are our own form of
the search of Ma et al. 2025 for bridges.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.integrator import Spacing, VectorField, euler_maruyama, simulate, time_grid
from sbflow.process import Brownian
from sbflow.tensor import expand_to

__all__ = ["Roll", "bridge_roll", "coarse_steps"]


class CountedField:
    """A drift that counts the rows it is evaluated at.

    Args:
        drift: called with (x, u), u a scalar of the clock.
    """

    def __init__(self, drift: VectorField) -> None:
        self.drift = drift
        self.rows = 0

    def __call__(self, x: Float[Tensor, "n *event"], u: Tensor) -> Float[Tensor, "n *event"]:
        """The drift."""
        self.rows += len(x)
        return self.drift(x, u)


class Roll:
    """Euler–Maruyama along a bridge with noise given from outside.

    Steps are counted from 0 to `num_steps`; step k ends at the time of node k. A coarse roll has fewer nodes and takes
    the same noise, that of the fine steps.

    Args:
        drift: called with (x ``[n, *event]``, u), u the direction's own clock.
        process: Brownian reference.
        times: grid of the fine steps from 0 to 1.
        last_noise: whether the last step draws noise.
        nodes: positions in ``times`` between which the steps lead, from the first to the last; all by default.
    """

    def __init__(
        self,
        drift: VectorField,
        process: Brownian,
        times: Float[Tensor, " k"],
        *,
        last_noise: bool = True,
        nodes: Sequence[int] | None = None,
    ) -> None:
        self.field = drift if isinstance(drift, CountedField) else CountedField(drift)
        self.process = process
        self.times = times
        self.last_noise = last_noise
        self.nodes = list(range(len(times)) if nodes is None else nodes)

    @property
    def num_steps(self) -> int:
        """Steps of a whole rollout."""
        return len(self.nodes) - 1

    @property
    def evaluations(self) -> int:
        """Rows at which the drift was evaluated so far, by this roll and by all that were made coarse from it."""
        return self.field.rows

    def coarse(self, num_steps: int) -> "Roll":
        """The same roll with fewer steps, along the same Brownian path.

        Raises:
            ValueError: ``num_steps`` is not between 1 and the steps that there are.
        """
        if not 1 <= num_steps <= self.num_steps:
            raise ValueError(f"search_steps must lie between 1 and the {self.num_steps} steps, got {num_steps}")
        chosen = [self.nodes[step] for step in coarse_steps(self.num_steps, num_steps)]
        return Roll(self.field, self.process, self.times, last_noise=self.last_noise, nodes=chosen)

    def __call__(
        self, x: Float[Tensor, "n *event"], noise: Float[Tensor, "fine n *event"]
    ) -> Float[Tensor, "n *event"]:
        """End of each path."""
        return self.partial(x, noise, 0, self.num_steps)

    @torch.no_grad()
    def partial(
        self, x: Float[Tensor, "n *event"], noise: Float[Tensor, "fine n *event"], from_step: int, to_step: int
    ) -> Float[Tensor, "n *event"]:
        """States after ``to_step``, from those after ``from_step``, with the noise of the fine steps between them."""
        nodes = self.nodes[from_step : to_step + 1]
        times = self.times.to(x.device)[nodes]
        kernel = euler_maruyama(self.field, self.process.diffusion)
        last_noise = self.last_noise or to_step < self.num_steps
        return simulate(kernel, x, times, last_noise=last_noise, noise=self._gathered(noise, nodes))

    def fine_steps(self, from_step: int, to_step: int) -> int:
        """Draws of noise between two steps."""
        return self.nodes[to_step] - self.nodes[from_step]

    def renoise(
        self,
        x0: Float[Tensor, "n *event"],
        x: Float[Tensor, "n *event"],
        from_step: int,
        to_step: int,
        noise: Float[Tensor, "n *event"],
    ) -> Float[Tensor, "n *event"]:
        """Go back from the state x at t to an earlier s by the bridge from x0, N(x0 + (s/t)(x − x0), ε s (t − s) / t).

        This is the exact conditional law of any mixture of Brownian bridges, so that back and forth leaves the law of
        the translation unchanged.
        """
        t, s = (self.times[self.nodes[step]].item() for step in (from_step, to_step))
        std = (self.process.epsilon * s * (t - s) / t) ** 0.5
        return x0 + (s / t) * (x - x0) + std * noise

    @torch.no_grad()
    def look_ahead(self, x: Float[Tensor, "n *event"], step: int) -> Float[Tensor, "n *event"]:
        """Expected end x + (1 − t) f(t, x) of the paths that are at x after a step; x itself at the end."""
        if step == self.num_steps:
            return x
        t = self.times.to(x.device)[self.nodes[step]]
        return x + expand_to(1 - t, x).to(x.dtype) * self.field(x, t)

    def _gathered(self, noise: Tensor, nodes: list[int]) -> Tensor:
        """Noise of the steps between the nodes, from that of the fine steps."""
        sizes = torch.tensor(nodes).diff().tolist()
        if max(sizes) == 1:
            return noise
        widths = expand_to(self.times[nodes[0] : nodes[-1] + 1].diff().sqrt().to(noise), noise)
        pieces = zip(torch.split(widths, sizes), torch.split(noise, sizes), strict=True)
        # no matrix product, which autocast would round
        return torch.stack([(w * z).sum(0) / w.norm() for w, z in pieces])


def coarse_steps(num_steps: int, coarse: int) -> list[int]:
    """Which of ``num_steps`` steps end the steps of a coarse roll, 0 included.

    >>> coarse_steps(10, 4)
    [0, 2, 5, 7, 10]
    """
    return [i * num_steps // coarse for i in range(coarse + 1)]


def bridge_roll(
    drift: nn.Module,
    process: Brownian,
    *,
    direction: Literal["forward", "backward"] = "forward",
    num_steps: int = 30,
    times: Spacing | Tensor = "uniform",
    last_noise: bool = True,
) -> Roll:
    """Rollouts of a trained bridge in one direction, as `translate` makes them with ``method="euler"``.

    Args:
        drift: its network, called with (x, u ``[1]``, direction ``[n]``); of a trained flow ``flow.ema.module``.
        process: Brownian reference.
        direction: ``"forward"`` from x0 to x1, ``"backward"`` from x1 to x0.
        num_steps: steps of a named grid.
        times: spacing of the steps, or the grid itself.
        last_noise: whether the last step draws noise.

    Raises:
        ValueError: an option out of range.
    """
    if direction not in ("forward", "backward"):
        raise ValueError(f"direction must be 'forward' or 'backward', got {direction!r}")
    flag, network = int(direction == "backward"), drift.eval()

    def field(x: Tensor, u: Tensor) -> Tensor:
        rows = torch.full((len(x),), flag, device=x.device)
        return network(x, u.to(x.dtype).reshape(1), rows)

    return Roll(field, process, time_grid(times, num_steps), last_noise=last_noise)
