"""Image files in and out."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = ["image_files", "read_image", "write_image"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


def image_files(folder: Path) -> list[Path]:
    """Names of the images under a folder, relative to it and sorted.

    Raises:
        FileNotFoundError: the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"input={folder} is not a folder")
    names = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not names:
        raise FileNotFoundError(f"input={folder} holds no image ({', '.join(sorted(SUFFIXES))})")
    return names


def read_image(file: Path, event_shape: Sequence[int]) -> Float[Tensor, "c h w"]:
    """Read an image in [-1, 1], in the channels and size that a model takes.

    Args:
        file: the image.
        event_shape: (channels, height, width); one channel is grey, three are colour.

    Raises:
        OSError: the file cannot be decoded.
        ValueError: the model does not take images.
    """
    if len(event_shape) != 3 or event_shape[0] not in (1, 3):
        raise ValueError(f"the model takes samples of shape {list(event_shape)}, not images")
    with Image.open(file) as image:
        # Pillow would clip 16-bit grey at 255 instead of scaling it
        eight_bit = Image.fromarray((np.asarray(image) // 256).astype(np.uint8)) if "I" in image.mode else image
        pixels = F.pil_to_tensor(eight_bit.convert("L" if event_shape[0] == 1 else "RGB"))
    pixels = pixels.to(torch.get_default_dtype()) / 127.5 - 1
    size = list(event_shape[1:])
    return pixels if list(pixels.shape[1:]) == size else F.resize(pixels, size, antialias=True)


def write_image(image: Float[Tensor, "c h w"], file: Path) -> None:
    """Write an image with values in [-1, 1], clamped for display; the file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    F.to_pil_image(((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()).save(partial, format="png")
    partial.replace(file)
