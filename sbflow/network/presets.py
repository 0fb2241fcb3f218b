"""U-Nets of the sizes that the experiments use; any option of `UNet` that is not a size can be set."""

from collections.abc import Sequence
from typing import Any

from sbflow.network.unet import UNet

__all__ = ["UNet28", "UNet64", "UNet256", "UNetSmall"]


class UNetSmall(UNet):
    """0.3M parameters: 16×16 or 28×28 pictures on a CPU.

    Args:
        event_shape: (channels, height, width) of one image.
        width: see `UNet`.
        multipliers: see `UNet`.
        **options: further options of `UNet`.
    """

    def __init__(
        self, event_shape: Sequence[int], *, width: int = 16, multipliers: Sequence[int] = (1, 2, 4), **options: Any
    ) -> None:
        super().__init__(event_shape, width=width, multipliers=multipliers, **options)


class UNet28(UNet):
    """8.7M parameters for 28×28 pictures, attention at 14×14 and 7×7; De Bortoli et al. 2024 have 8.8M.

    Args:
        event_shape: (channels, height, width) of one image.
        width: see `UNet`.
        num_blocks: see `UNet`.
        attention_levels: see `UNet`.
        embed_dim: see `UNet`.
        **options: further options of `UNet`.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        width: int = 96,
        num_blocks: int = 2,
        attention_levels: Sequence[int] = (1, 2),
        embed_dim: int = 384,
        **options: Any,
    ) -> None:
        sizes: dict[str, Any] = {"num_blocks": num_blocks, "attention_levels": attention_levels, "embed_dim": embed_dim}
        super().__init__(event_shape, width=width, **sizes, **options)


class UNet64(UNet):
    """191M parameters for 64×64 photographs, attention at 16×16 and 8×8; De Bortoli et al. 2024 have 194M.

    Args:
        event_shape: (channels, height, width) of one image.
        width: see `UNet`.
        multipliers: see `UNet`.
        num_blocks: see `UNet`.
        attention_levels: see `UNet`.
        embed_dim: see `UNet`.
        **options: further options of `UNet`.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        width: int = 224,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attention_levels: Sequence[int] = (2, 3),
        embed_dim: int = 896,
        **options: Any,
    ) -> None:
        sizes: dict[str, Any] = {"num_blocks": num_blocks, "attention_levels": attention_levels, "embed_dim": embed_dim}
        super().__init__(event_shape, width=width, multipliers=multipliers, **sizes, **options)


class UNet256(UNet):
    """234M parameters for 256×256 photographs, attention at 16×16 and 8×8; De Bortoli et al. 2024 have 227M.

    Its blocks are recomputed in the backward pass, without which a batch of 16 takes tens of gigabytes.

    Args:
        event_shape: (channels, height, width) of one image.
        width: see `UNet`.
        multipliers: see `UNet`.
        num_blocks: see `UNet`.
        attention_levels: see `UNet`.
        embed_dim: see `UNet`.
        checkpointing: see `UNet`.
        **options: further options of `UNet`.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        width: int = 192,
        multipliers: Sequence[int] = (1, 1, 2, 3, 4, 4),
        num_blocks: int = 3,
        attention_levels: Sequence[int] = (4, 5),
        embed_dim: int = 768,
        checkpointing: bool = True,
        **options: Any,
    ) -> None:
        sizes: dict[str, Any] = {"num_blocks": num_blocks, "attention_levels": attention_levels, "embed_dim": embed_dim}
        super().__init__(
            event_shape, width=width, multipliers=multipliers, checkpointing=checkpointing, **sizes, **options
        )
