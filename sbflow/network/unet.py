"""A convolutional U-Net with optional self-attention, conditioned on time and direction."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sbflow.network.embedding import ConditionEmbedding

__all__ = ["SelfAttention", "UNet"]

GROUP = 8  # channels of one group of the norms


class UNet(nn.Module):
    """U-Net for images of any height and width: the input is padded to a multiple of the coarsest pixel.

    Args:
        event_shape: (channels, height, width) of one image; only the channels are fixed by it.
        width: channels at the finest level.
        multipliers: channels of each level, finest first, as multiples of ``width``; each further level halves the
            resolution.
        num_blocks: residual blocks per level.
        attention_levels: levels, counted from 0 at the finest, whose blocks are followed by self-attention; its cost
            grows with the square of the number of pixels.
        head_width: channels of one attention head.
        embed_dim: size of the embedding of time and direction.
        num_directions: 0, or 2 for a bidirectional network.
        dropout: probability with which a channel's pixel is dropped inside a residual block while training.
        checkpointing: recompute each block in the backward pass instead of keeping its activations: about a third more
            time for a fraction of the memory.
        patch_size: side of the squares of pixels that enter and leave as channels of one pixel. With 2, a quarter of
            the finest level's pixels; details within a square are then left to the last layer. Resolutions of
            ``attention_levels`` are those after it.
        channels_last: memory layout of the activations; by default channels-last for float32 on a CPU, where the
            convolutions are faster with it (the group norms of other dtypes and devices are not).

    Raises:
        ValueError: the event is not an image, or an option is out of range.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        num_blocks: int = 1,
        attention_levels: Sequence[int] = (),
        head_width: int = 32,
        embed_dim: int = 128,
        num_directions: int = 0,
        dropout: float = 0.0,
        checkpointing: bool = False,
        patch_size: int = 1,
        channels_last: bool | None = None,
    ) -> None:
        super().__init__()
        _check_architecture(event_shape, width, multipliers, num_blocks, dropout, patch_size)
        _check_attention([width * m for m in multipliers], attention_levels, head_width)
        self.checkpointing = checkpointing
        self.channels_last = channels_last
        self.patch_size = patch_size
        self.multiple = patch_size * 2 ** (len(multipliers) - 1)
        patch_channels = event_shape[0] * patch_size**2
        self.embedding = ConditionEmbedding(embed_dim, num_directions=num_directions)
        self.into = nn.Conv2d(patch_channels, width, 3, padding=1)
        channels = [width * multiplier for multiplier in multipliers]
        finer = [width, *channels[:-1]]
        heads = [head_width if level in attention_levels else 0 for level in range(len(channels))]

        def level(index: int, channels_in: int, channels_out: int, *, down: bool) -> _Level:
            halve = nn.Conv2d(channels_in, channels_in, 3, stride=2, padding=1) if index and down else nn.Identity()
            widths = [channels_in] + [channels_out] * num_blocks
            blocks = [_ResidualBlock(a, b, embed_dim, dropout, heads[index]) for a, b in pairwise(widths)]
            return _Level(halve, blocks, nn.Identity() if down or not index else nn.Upsample(scale_factor=2))

        self.down = nn.ModuleList(level(i, finer[i], channels[i], down=True) for i in range(len(channels)))
        self.middle = _ResidualBlock(channels[-1], channels[-1], embed_dim, dropout, heads[-1])
        self.up = nn.ModuleList(level(i, 2 * channels[i], finer[i], down=False) for i in reversed(range(len(channels))))
        self.norm = _group_norm(width)
        self.out = _zero_initialised(nn.Conv2d(width, patch_channels, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "n c h w"], t: Float[Tensor, " m"], direction: Tensor | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Field at (x, t), of the shape of x; zero at initialisation."""
        condition = nn.functional.silu(self.embedding(t, direction))
        height, width = x.shape[-2:]
        padded = nn.functional.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        h = self.into(_patches(padded, self.patch_size).contiguous(memory_format=self._memory_format(x)))
        recompute = self.checkpointing and self.training
        skips = []
        for level in self.down:
            h = level(h, condition, recompute)
            skips.append(h)
        h = _apply(self.middle, h, condition, recompute)
        for level in self.up:
            h = level(torch.cat([h, skips.pop()], dim=1), condition, recompute)
        patches = self.out(nn.functional.silu(self.norm(h)))
        return _pixels(patches, self.patch_size)[..., :height, :width]

    def _memory_format(self, x: Tensor) -> torch.memory_format:
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        chosen = plain if self.channels_last is None else self.channels_last
        return torch.channels_last if chosen else torch.contiguous_format


class SelfAttention(nn.Module):
    """Every pixel attends to every other; the identity at initialisation.

    Args:
        channels: of the input, a multiple of 8 and of ``head_width``.
        head_width: channels of one head.
    """

    def __init__(self, channels: int, head_width: int = 32) -> None:
        super().__init__()
        self.num_heads = channels // head_width
        self.norm = _group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero_initialised(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Add what the heads gather."""
        qkv = self.qkv(self.norm(h)).flatten(2).unflatten(1, (3, self.num_heads, -1))
        # [n, heads, pixels, head_width], contiguous as the fused kernels want it
        query, key, value = (part.transpose(2, 3).contiguous() for part in qkv.unbind(1))
        gathered = nn.functional.scaled_dot_product_attention(query, key, value)
        return h + self.out(gathered.transpose(2, 3).reshape(h.shape))


class _Level(nn.Module):
    """Residual blocks at one resolution, after halving it or before doubling it."""

    def __init__(self, before: nn.Module, blocks: Sequence[nn.Module], after: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.blocks = nn.ModuleList(blocks)
        self.after = after

    def forward(self, h: Tensor, condition: Tensor, recompute: bool) -> Tensor:
        h = self.before(h)
        for block in self.blocks:
            h = _apply(block, h, condition, recompute)
        return self.after(h)


class _ResidualBlock(nn.Module):
    def __init__(
        self, channels_in: int, channels_out: int, embed_dim: int, dropout: float = 0.0, head_width: int = 0
    ) -> None:
        super().__init__()
        self.norm = _group_norm(channels_in)
        self.into = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.condition = nn.Linear(embed_dim, channels_out)
        self.norm_out = _group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.attention = SelfAttention(channels_out, head_width) if head_width else nn.Identity()

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        inner = self.into(nn.functional.silu(self.norm(h))) + self.condition(condition)[:, :, None, None]
        inner = self.dropout(nn.functional.silu(self.norm_out(inner)))
        return self.attention(self.skip(h) + self.out(inner))


def _patches(x: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n cpp rows columns"]:
    """As `torch.pixel_unshuffle`, which leaves an empty batch as it is."""
    n, channels, height, width = x.shape
    cut = x.reshape(n, channels, height // size, size, width // size, size)
    return cut.permute(0, 1, 3, 5, 2, 4).reshape(n, channels * size**2, height // size, width // size)


def _pixels(patches: Float[Tensor, "n cpp rows columns"], size: int) -> Float[Tensor, "n c h w"]:
    """The inverse."""
    n, channels, rows, columns = patches.shape
    cut = patches.reshape(n, channels // size**2, size, size, rows, columns)
    return cut.permute(0, 1, 4, 2, 5, 3).reshape(n, channels // size**2, rows * size, columns * size)


def _apply(block: nn.Module, h: Tensor, condition: Tensor, recompute: bool) -> Tensor:
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, h, condition, use_reentrant=False)
    return block(h, condition)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)


def _zero_initialised(layer: nn.Conv2d) -> nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _check_architecture(
    event_shape: Sequence[int],
    width: int,
    multipliers: Sequence[int],
    num_blocks: int,
    dropout: float,
    patch_size: int,
) -> None:
    if len(event_shape) != 3:
        raise ValueError(f"event_shape must be (channels, height, width), got {tuple(event_shape)}")
    if width < GROUP or width % GROUP:
        raise ValueError(f"width must be a multiple of {GROUP}, got {width}")
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"multipliers must be at least one number, each at least 1, got {list(multipliers)}")
    if num_blocks < 1:
        raise ValueError(f"num_blocks must be at least 1, got {num_blocks}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
    if not isinstance(patch_size, int) or patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")


def _check_attention(channels: Sequence[int], levels: Sequence[int], head_width: int) -> None:
    if not set(levels) <= set(range(len(channels))):
        raise ValueError(f"attention_levels must lie in 0 to {len(channels) - 1}, got {list(levels)}")
    for level in levels:
        # going up, the blocks of a level have the channels of the next finer one
        for count in (channels[level], channels[max(level - 1, 0)]):
            if head_width < 1 or count % head_width:
                raise ValueError(f"head_width must divide the {count} channels that attention meets, got {head_width}")
