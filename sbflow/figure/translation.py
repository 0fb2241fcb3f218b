"""Inputs and their translations, side by side."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

__all__ = ["TranslationGrid"]


class TranslationGrid:
    """Held-out images of both ends, each above its translations with two seeds.

    Args:
        num_images: columns.
        num_steps: steps of the sampler.
        seed: seed of the choice and of the noise.
    """

    def __init__(self, num_images: int = 16, num_steps: int = 30, seed: int = 0) -> None:
        self.num_images = num_images
        self.num_steps = num_steps
        self.seed = seed

    def check(self, module: object, data: Any) -> None:
        """Refuse data that are no images.

        Raises:
            ValueError: names the shape.
        """
        if len(getattr(data, "event_shape", (1, 1, 1))) != 3:
            raise ValueError(f"figure TranslationGrid needs images [c, h, w], got samples of {list(data.event_shape)}")

    def __call__(self, module: Any, data: Any) -> Figure:
        """Draw with an algorithm that translates and data that has a test split."""
        self.check(module, data)
        split = data.split("test")
        figure = Figure(figsize=(0.6 * self.num_images, 4.2), layout="constrained")
        for axes, (direction, x) in zip(
            figure.subplots(2, 1), (("forward", split.x0), ("backward", split.x1)), strict=True
        ):
            pixels = self._grid(module, x, direction).clamp(0, 1).permute(1, 2, 0).numpy()
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(f"{direction}: input, then two translations", fontsize=9)
            axes.set_axis_off()
        return figure

    def _grid(self, module: Any, x: Tensor, direction: str) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        x = x[torch.randperm(len(x), generator=generator)[: self.num_images]]
        rows = [x, *(module.translate(x, direction, num_steps=self.num_steps, seed=self.seed + k) for k in (1, 2))]
        return make_grid((torch.cat(rows) + 1) / 2, nrow=len(x), padding=1, pad_value=0.5)
