"""Random changes of training images."""

from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

__all__ = ["Augmentation"]


class Augmentation(NamedTuple):
    """A random window and a random reflection of each image.

    Attributes:
        margin: pixels by which the given images exceed the window, in height and in width.
        flip: reflect half of the images, left to right.
    """

    margin: int = 0
    flip: bool = False

    def __call__(self, images: UInt8[Tensor, "n c h w"], generator: torch.Generator) -> UInt8[Tensor, "n c i j"]:
        """Change each image by its own draw."""
        n = len(images)
        if not self.margin and not self.flip:
            return images
        top, left = torch.randint(self.margin + 1, (2, n), generator=generator)
        flipped = torch.rand(n, generator=generator) < 0.5 * self.flip
        return self._cut(images, top, left, flipped)

    def centre(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c i j"]:
        """The window in the middle, not reflected."""
        if not self.margin:
            return images
        middle = torch.full((len(images),), self.margin // 2)
        return self._cut(images, middle, middle, torch.zeros(len(images), dtype=torch.bool))

    def _cut(self, images: Tensor, top: Int[Tensor, " n"], left: Int[Tensor, " n"], flipped: Tensor) -> Tensor:
        height, width = (size - self.margin for size in images.shape[2:])
        rows = top[:, None] + torch.arange(height)
        columns = left[:, None] + torch.arange(width)
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
        n, c = (torch.arange(size) for size in images.shape[:2])
        return images[n[:, None, None, None], c[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
