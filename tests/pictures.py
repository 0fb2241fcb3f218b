"""Image files to read."""

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["fill", "save_noise"]


def save_noise(file: Path, seed: int, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> None:
    """Write an image of random bytes; the size is (width, height)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels, mode=mode if channels > 1 else None).save(file)


def fill(folder: Path, count: int, seed: int = 0, **options: object) -> Path:
    """Write ``000.png``, ``001.png``, … and return the folder."""
    for k in range(count):
        save_noise(folder / f"{k:03d}.png", 1000 * seed + k, **options)
    return folder
