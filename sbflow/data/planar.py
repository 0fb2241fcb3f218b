"""Sets of points in the plane, in the scales of the published two-dimensional tables.

The moons (two half circles with noise of deviation 0.2, then 3 x − 1) and the eight Gaussians (centres on a circle of
radius 5, variance √0.1 in each coordinate) are those of Tong et al. 2023 (torchcfm), which the tables of DSBM and of
Schrödinger Bridge Flow follow. The scale of the published s-curve is not stated; here it has the deviation of the
moons' larger coordinate. Checkerboard and spirals fill the square [-4, 4]².
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.data.unpaired import Split, UnpairedData
from sbflow.tensor import seeded_generator

__all__ = ["PLANAR_SETS", "Planar"]

PlanarSet = Callable[[int, torch.Generator], Float[Tensor, "n 2"]]
"""(number, generator) -> that many points."""


class Planar(UnpairedData):
    """Two of the sets ``gaussian``, ``moons``, ``eight_gaussians``, ``s_curve``, ``checkerboard`` and ``spirals``.

    Args:
        source: set of x0.
        target: set of x1.
        num_samples: samples of each end in the training split.
        num_test: samples of each end in the test split.
        **kwargs: see `UnpairedData`.

    Raises:
        ValueError: an unknown set, or a count below 1.
    """

    def __init__(
        self,
        *,
        source: str = "gaussian",
        target: str = "eight_gaussians",
        num_samples: int = 100_000,
        num_test: int = 20_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for end, name in (("source", source), ("target", target)):
            if name not in PLANAR_SETS:
                raise ValueError(f"{end} must be one of {', '.join(PLANAR_SETS)}, got {name!r}")
        for name, count in (("num_samples", num_samples), ("num_test", num_test)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.source = source
        self.target = target
        self.counts = {"train": num_samples, "test": num_test}

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Draw a split; the test split is independent of the training one."""
        generator, count = seeded_generator(self.seed, split == "test"), self.counts[split]
        return Split(PLANAR_SETS[self.source](count, generator), PLANAR_SETS[self.target](count, generator))


def _gaussian(n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    return torch.randn(n, 2, generator=generator)


def _eight_gaussians(n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    angle = math.pi / 4 * torch.randint(8, (n,), generator=generator)
    return 5 * _on_circle(angle) + 0.1**0.25 * torch.randn(n, 2, generator=generator)


def _moons(n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    arc = _on_circle(math.pi * torch.rand(n, generator=generator))
    # as many on each, as in the published sets
    lower = torch.arange(n)[:, None] % 2 == 1
    points = torch.where(lower, torch.tensor([1.0, 0.5]) - arc, arc)
    return 3 * (points + 0.2 * torch.randn(n, 2, generator=generator)) - 1


def _s_curve(n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    angle = 3 * math.pi * (torch.rand(n, generator=generator) - 0.5)
    points = torch.stack([angle.sin(), angle.sign() * (angle.cos() - 1)], dim=1)
    return 2 * (points + 0.05 * torch.randn(n, 2, generator=generator))


def _checkerboard(n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """The eight squares of side 2 whose column and row numbers have an even sum."""
    square = torch.randint(8, (n,), generator=generator)
    column, half = square % 4, square // 4
    corner = torch.stack([column, 2 * half + column % 2], dim=1)
    return 2 * (corner + torch.rand(n, 2, generator=generator)) - 4


def _spirals(n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Two arms, each the half turn of the other."""
    # the square root spreads the points evenly along the arm
    angle = 3 * math.pi * torch.rand(n, generator=generator).sqrt()
    side = 2.0 * torch.randint(2, (n, 1), generator=generator) - 1
    arm = side * (angle / (3 * math.pi))[:, None] * _on_circle(angle)
    return 4 * arm + 0.1 * torch.randn(n, 2, generator=generator)


def _on_circle(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    return torch.stack([angle.cos(), angle.sin()], dim=1)


PLANAR_SETS: dict[str, PlanarSet] = {
    "gaussian": _gaussian,
    "moons": _moons,
    "eight_gaussians": _eight_gaussians,
    "s_curve": _s_curve,
    "checkerboard": _checkerboard,
    "spirals": _spirals,
}
