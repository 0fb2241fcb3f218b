"""What a metric needs of the data and of the algorithm; any object of this shape will do."""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "BridgeTranslator",
    "Direction",
    "LabelledSplit",
    "Translator",
    "TwoSided",
    "check_least",
    "check_translates",
    "translate_all",
]

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


@runtime_checkable
class _Epsilon(Protocol):
    epsilon: float


@runtime_checkable
class BridgeTranslator(Translator, Protocol):
    """A translation that knows its reference process."""

    @property
    def process(self) -> _Epsilon:
        """Brownian motion of variance ``epsilon`` per unit of time."""


def check_least(least: int, **options: int) -> None:
    """Refuse options that are below ``least``.

    Raises:
        ValueError: names the option, what is allowed and what was given.
    """
    for name, value in options.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def check_translates(metric: object, module: object, data: object) -> None:
    """Refuse an algorithm or data that a metric of translations cannot measure.

    Raises:
        ValueError: the algorithm does not translate, or the data do not have two ends.
    """
    name = type(metric).__name__
    if not hasattr(module, "translate"):
        raise ValueError(f"metric {name} measures a translation, and {type(module).__name__} does not translate")
    if not hasattr(data, "split"):
        raise ValueError(f"metric {name} compares two sets of samples, and {type(data).__name__} does not have them")


def translate_all(
    module: Translator,
    x: Float[Tensor, "n *event"],
    direction: Direction,
    *,
    num_steps: int,
    generator: torch.Generator,
    batch_size: int,
) -> Float[Tensor, "n *event"]:
    """Translate in batches, on the module's device; the result is on the CPU."""
    pieces = x.split(batch_size)
    return torch.cat(
        [
            module.translate(piece.to(module.device), direction, num_steps=num_steps, generator=generator).cpu()
            for piece in pieces
        ]
    )
