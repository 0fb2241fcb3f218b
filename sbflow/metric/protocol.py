"""What a metric needs of the data and of the algorithm; any object of this shape will do."""

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Direction", "LabelledSplit", "Translator", "TwoSided"]

Direction = Literal["forward", "backward"]


@runtime_checkable
class LabelledSplit(Protocol):
    """Samples of both ends; labels are integer classes from 0 for each end, or None."""

    @property
    def x0(self) -> Tensor:
        """Samples of π₀ ``[n0, *event]``."""

    @property
    def x1(self) -> Tensor:
        """Samples of π₁ ``[n1, *event]``."""

    @property
    def labels0(self) -> Tensor | None:
        """Class of each x0."""

    @property
    def labels1(self) -> Tensor | None:
        """Class of each x1."""


@runtime_checkable
class TwoSided(Protocol):
    """Data with a training and a test split."""

    def split(self, split: Literal["train", "test"]) -> LabelledSplit:
        """One split."""


@runtime_checkable
class Translator(Protocol):
    """A trained translation between the two ends."""

    @property
    def device(self) -> torch.device:
        """Where the samples are to be sent."""

    def translate(
        self, x: Tensor, direction: Direction, *, num_steps: int = 30, generator: torch.Generator | None = None
    ) -> Tensor:
        """Send samples of one end to the other end."""
