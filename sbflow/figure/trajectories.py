"""Paths of a bridge in the plane, between its two marginals."""

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["Trajectories"]

COLOURS = {"forward": ("#2a6f97", "#c1440e"), "backward": ("#c1440e", "#2a6f97")}


class Trajectories:
    """Simulated paths over the real samples of both ends, forward and backward.

    Above, each path with its start and end over the data; below, the generated end beside the real one.

    Args:
        num_paths: paths drawn in each direction.
        num_samples: samples of each marginal.
        num_steps: steps of the sampler.
        seed: seed of the noise.
    """

    def __init__(self, num_paths: int = 40, num_samples: int = 2000, num_steps: int = 50, seed: int = 0) -> None:
        self.num_paths = num_paths
        self.num_samples = num_samples
        self.num_steps = num_steps
        self.seed = seed

    def check(self, module: object, data: Any) -> None:
        """Refuse data that are not points in the plane.

        Raises:
            ValueError: names the shape.
        """
        if tuple(getattr(data, "event_shape", (2,))) != (2,):
            raise ValueError(f"figure Trajectories needs points in the plane, got samples of {list(data.event_shape)}")

    def __call__(self, module: Any, data: Any) -> Figure:
        """Draw with an algorithm that translates and data that has a test split."""
        self.check(module, data)
        split = data.split("test")
        figure = Figure(figsize=(9, 9), layout="compressed")
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        self._draw(axes[:, 0], module, "forward", split.x0, split.x1)
        self._draw(axes[:, 1], module, "backward", split.x1, split.x0)
        for one in axes.flat:
            one.set(aspect="equal", xticks=[], yticks=[])
        return figure

    def _draw(self, axes: Any, module: Any, direction: str, start: Tensor, end: Tensor) -> None:
        start, end = start[: self.num_samples], end[: self.num_samples]
        path = module.translate(start, direction, num_steps=self.num_steps, seed=self.seed, return_path=True).cpu()
        names = ("$x_0$", "$x_1$") if direction == "forward" else ("$x_1$", "$x_0$")
        first, second = COLOURS[direction]
        for one in axes:
            _points(one, start if one is axes[0] else end, first if one is axes[0] else second, alpha=0.25)
        _points(axes[0], end, second, alpha=0.25)
        _lines(axes[0], path[:, : self.num_paths], first, second)
        _points(axes[1], path[-1], "black", alpha=0.35)
        axes[0].set_title(f"{direction}: {names[0]} to {names[1]}")
        axes[1].set_title(f"{names[1]}: data (colour), generated (black)", fontsize=10)


def _points(axes: Axes, x: Tensor, colour: str, *, alpha: float) -> None:
    axes.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=4, color=colour, alpha=alpha, linewidths=0)


def _lines(axes: Axes, path: Tensor, first: str, second: str) -> None:
    """Paths ``[k, n, 2]`` as lines, with marks where they start and end."""
    lines: list[Any] = list(path.movedim(1, 0).numpy())
    axes.add_collection(LineCollection(lines, colors="black", linewidths=0.6, alpha=0.55))
    for points, colour in ((path[0], first), (path[-1], second)):
        axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=22, color=colour, edgecolors="black", zorder=3)
    corners = path.flatten(0, 1)
    axes.update_datalim(torch.stack([corners.amin(0), corners.amax(0)]).numpy())
