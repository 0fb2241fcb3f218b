"""Networks written elsewhere, as backbones."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Adapter", "DiffusersUNet"]


class Adapter(nn.Module):
    """Gives any module f(x, t, direction) the contract of a backbone.

    The module gets one float time and one integer direction per sample, images padded to a size that it can halve, and
    may return a tensor or, as those of diffusers do, an object whose ``sample`` is one.

    Args:
        module: the network.
        num_directions: 0 if it takes no direction, 2 for a bidirectional one.
        direction_name: keyword of the direction; by default it is the third positional argument.
        time_scale: factor of the time, which lies in [0, 1]; 1000 for networks made for a thousand diffusion steps.
        multiple: height and width are padded with zeros to multiples of it, and the output is cut back.
        zero_init: multiply the output by a learned number that starts at 0, so that the field is zero at first.

    Raises:
        ValueError: an option is out of range.
    """

    gain: nn.Parameter | None

    def __init__(
        self,
        module: nn.Module,
        *,
        num_directions: int = 2,
        direction_name: str | None = None,
        time_scale: float = 1.0,
        multiple: int = 1,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        if num_directions < 0:
            raise ValueError(f"num_directions must be at least 0, got {num_directions}")
        if not time_scale > 0:
            raise ValueError(f"time_scale must be positive, got {time_scale}")
        if multiple < 1:
            raise ValueError(f"multiple must be at least 1, got {multiple}")
        self.module = module
        self.num_directions = num_directions
        self.direction_name = direction_name
        self.time_scale = time_scale
        self.multiple = multiple
        self.gain = nn.Parameter(torch.zeros(())) if zero_init else None

    def forward(
        self, x: Float[Tensor, "n *event"], t: Float[Tensor, " m"], direction: Tensor | None = None
    ) -> Float[Tensor, "n *event"]:
        """Field at (x, t), of the shape of x.

        Raises:
            ValueError: a direction is given to a network without one or the other way round, or the module returns
                another shape.
        """
        if (direction is None) != (self.num_directions == 0):
            given = "none" if direction is None else "one per sample"
            raise ValueError(f"network has {self.num_directions} directions, got {given}")
        out = self._call(self._pad(x), (self.time_scale * t).expand(len(x)), direction)
        out = getattr(out, "sample", out)
        if self.multiple > 1:
            out = out[..., : x.shape[-2], : x.shape[-1]]
        if out.shape != x.shape:
            name = type(self.module).__name__
            raise ValueError(f"{name} must return the shape of its input, {list(x.shape)}, got {list(out.shape)}")
        return out if self.gain is None else self.gain * out

    def _call(self, x: Tensor, t: Tensor, direction: Tensor | None) -> Any:
        if direction is None:
            return self.module(x, t)
        if self.direction_name is None:
            return self.module(x, t, direction)
        return self.module(x, t, **{self.direction_name: direction})

    def _pad(self, x: Tensor) -> Tensor:
        if self.multiple == 1:
            return x
        return nn.functional.pad(x, (0, -x.shape[-1] % self.multiple, 0, -x.shape[-2] % self.multiple))


class DiffusersUNet(Adapter):
    """``UNet2DModel`` of diffusers (extra ``images``): the direction is its class label, the time is scaled by 1000.

    Args:
        event_shape: (channels, height, width) of one image; only the channels are fixed by it.
        widths: channels of each level, finest first.
        num_blocks: residual blocks per level.
        attention_levels: levels, counted from 0 at the finest, with self-attention.
        norm_groups: groups of the norms, which must divide every width.
        num_directions: 0, or 2 for a bidirectional network.
        dropout: inside the residual blocks.

    Raises:
        ModuleNotFoundError: diffusers is not installed.
        ValueError: the event is not an image, or an option is out of range.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        widths: Sequence[int] = (64, 128, 128),
        num_blocks: int = 1,
        attention_levels: Sequence[int] = (),
        norm_groups: int = 16,
        num_directions: int = 0,
        dropout: float = 0.0,
    ) -> None:
        if len(event_shape) != 3:
            raise ValueError(f"event_shape must be (channels, height, width), got {tuple(event_shape)}")
        if not widths or norm_groups < 1 or any(width % norm_groups for width in widths):
            raise ValueError(f"norm_groups must divide every one of widths={list(widths)}, got {norm_groups}")
        if not set(attention_levels) <= set(range(len(widths))):
            raise ValueError(f"attention_levels must lie in 0 to {len(widths) - 1}, got {list(attention_levels)}")
        attends = [level in attention_levels for level in range(len(widths))]
        model = _unet_2d_model()(
            in_channels=event_shape[0],
            out_channels=event_shape[0],
            layers_per_block=num_blocks,
            block_out_channels=tuple(widths),
            down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
            up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
            norm_num_groups=norm_groups,
            # heads of as many channels as there are groups: both divide every width
            attention_head_dim=norm_groups,
            num_class_embeds=num_directions or None,
            dropout=dropout,
        )
        for parameter in model.conv_out.parameters():
            nn.init.zeros_(parameter)
        super().__init__(
            model,
            num_directions=num_directions,
            direction_name="class_labels",
            time_scale=1000.0,
            multiple=2 ** (len(widths) - 1),
        )


def _unet_2d_model() -> Any:
    try:
        from diffusers import UNet2DModel
    except ModuleNotFoundError as error:
        message = "DiffusersUNet needs diffusers: install it with pip install 'sbflow[images]'"
        raise ModuleNotFoundError(message) from error
    return UNet2DModel
