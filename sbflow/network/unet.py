"""A small convolutional U-Net, conditioned on time and direction."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.network.embedding import ConditionEmbedding

__all__ = ["UNet"]


class UNet(nn.Module):
    """U-Net for images of any height and width: the input is padded to a multiple of the coarsest pixel.

    Args:
        event_shape: (channels, height, width) of one image; only the channels are fixed by it.
        width: channels at the finest level.
        multipliers: channels of each level, finest first, as multiples of ``width``; each further level halves the
            resolution.
        num_blocks: residual blocks per level.
        embed_dim: size of the embedding of time and direction.
        num_directions: 0, or 2 for a bidirectional network.

    Raises:
        ValueError: the event is not an image, or ``width`` is not a multiple of 8 (the norms use groups of 8 channels).
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        num_blocks: int = 1,
        embed_dim: int = 128,
        num_directions: int = 0,
    ) -> None:
        super().__init__()
        if len(event_shape) != 3:
            raise ValueError(f"event_shape must be (channels, height, width), got {tuple(event_shape)}")
        if num_blocks < 1:
            raise ValueError(f"num_blocks must be at least 1, got {num_blocks}")
        if width < 8 or width % 8:
            raise ValueError(f"width must be a multiple of 8, got {width}")
        channels = [width * multiplier for multiplier in multipliers]
        self.multiple = 2 ** (len(channels) - 1)
        self.embedding = ConditionEmbedding(embed_dim, num_directions=num_directions)
        self.into = nn.Conv2d(event_shape[0], width, 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        previous = width
        for level, current in enumerate(channels):
            self.down.append(_Level(previous, current, num_blocks, embed_dim, "down" if level else "same"))
            previous = current
        self.middle = _ResidualBlock(previous, previous, embed_dim)
        for level, current in reversed(list(enumerate(channels))):
            after = channels[level - 1] if level else width
            self.up.append(_Level(2 * current, after, num_blocks, embed_dim, "up" if level else "same"))
        self.norm = nn.GroupNorm(width // 8, width)
        self.out = nn.Conv2d(width, event_shape[0], 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "n c h w"], t: Float[Tensor, " m"], direction: Tensor | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Field at (x, t), of the shape of x; zero at initialisation."""
        condition = nn.functional.silu(self.embedding(t, direction))
        height, width = x.shape[-2:]
        x = nn.functional.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        h = self.into(x)
        skips = []
        for level in self.down:
            h = level(h, condition)
            skips.append(h)
        h = self.middle(h, condition)
        for level in self.up:
            h = level(torch.cat([h, skips.pop()], dim=1), condition)
        return self.out(nn.functional.silu(self.norm(h)))[..., :height, :width]


class _Level(nn.Module):
    """Residual blocks at one resolution, after halving it or before doubling it."""

    def __init__(self, channels_in: int, channels_out: int, num_blocks: int, embed_dim: int, resize: str) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels_in, channels_in, 3, stride=2, padding=1) if resize == "down" else nn.Identity()
        widths = [channels_in] + [channels_out] * num_blocks
        self.blocks = nn.ModuleList(_ResidualBlock(a, b, embed_dim) for a, b in pairwise(widths))
        self.after = nn.Upsample(scale_factor=2) if resize == "up" else nn.Identity()

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        h = self.before(h)
        for block in self.blocks:
            h = block(h, condition)
        return self.after(h)


class _ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels_in // 8, channels_in)
        self.into = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.condition = nn.Linear(embed_dim, channels_out)
        self.norm_out = nn.GroupNorm(channels_out // 8, channels_out)
        self.out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        inner = self.into(nn.functional.silu(self.norm(h))) + self.condition(condition)[:, :, None, None]
        return self.skip(h) + self.out(nn.functional.silu(self.norm_out(inner)))
