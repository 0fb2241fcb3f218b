"""Image files in and out."""

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = ["Fit", "image_files", "image_size", "read_image", "read_pixels", "to_unit", "write_image"]

Fit = Literal["stretch", "crop"]

SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff",
    ".webp",
}  # fmt: skip
# formats that describe drawings (EPS, WMF) would start other programs, whatever the file is called
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MAX_PIXELS = 2**26


def image_files(folder: Path, *, option: str = "input", left_out: list[Path] | None = None) -> list[Path]:
    """Names of the images under a folder, relative to it and sorted.

    Args:
        folder: where to look, sub-folders included.
        option: what the folder is called in the messages.
        left_out: takes the names of the links that lead out of the folder; they are not followed.

    Raises:
        FileNotFoundError: the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{option}={folder} is not a folder")
    root = folder.resolve()
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES or file.is_symlink())
    outside = {file for file in found if _leaves(file, root)}
    if left_out is not None:
        left_out += [file.relative_to(folder) for file in found if file in outside]
    # a linked folder inside is met under its own name; a pipe would never end
    names = [
        file.relative_to(folder)
        for file in found
        if file not in outside and file.suffix.lower() in SUFFIXES and file.is_file()
    ]
    if not names:
        linked = f"; {len(outside)} links lead out of it" if outside else ""
        raise FileNotFoundError(f"{option}={folder} holds no image ({', '.join(sorted(SUFFIXES))}){linked}")
    return names


def _leaves(file: Path, root: Path) -> bool:
    """Whether a file or folder is a link out of a folder."""
    # unlike Path.resolve, it puts up with links in a circle
    return file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(root)


def image_size(file: Path) -> tuple[int, int]:
    """Height and width of an image as it is seen, without decoding its pixels.

    Raises:
        OSError: the file cannot be decoded.
        ValueError: the image is too large.
    """
    with _opened(file) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5
    return (width, height) if turned else (height, width)


def read_image(file: Path, event_shape: Sequence[int], *, fit: Fit = "stretch") -> Float[Tensor, "c h w"]:
    """Read an image in [-1, 1], in the channels and size that a model takes.

    Args:
        file: the image.
        event_shape: (channels, height, width); one channel is grey, three are colour.
        fit: see `read_pixels`.

    Raises:
        OSError: the file cannot be decoded.
        ValueError: the model does not take images, or the image is too large.
    """
    return to_unit(read_pixels(file, event_shape, fit=fit))


def read_pixels(file: Path, event_shape: Sequence[int], *, fit: Fit = "stretch") -> UInt8[Tensor, "c h w"]:
    """Read an image as bytes: upright by its EXIF, transparency on white, 16 bits scaled to 8, the first frame.

    Args:
        file: the image.
        event_shape: (channels, height, width); one channel is grey, three are colour.
        fit: ``"stretch"`` resizes to the shape, ``"crop"`` keeps the proportions and cuts what stands out at the sides.

    Raises:
        OSError: the file cannot be decoded.
        ValueError: the model does not take images, or the image is too large.
    """
    if len(event_shape) != 3 or event_shape[0] not in (1, 3):
        raise ValueError(f"the model takes samples of shape {list(event_shape)}, not images")
    with _opened(file) as image:
        pixels = F.pil_to_tensor(_opaque(ImageOps.exif_transpose(image), "L" if event_shape[0] == 1 else "RGB"))
    size = list(event_shape[1:])
    if list(pixels.shape[1:]) == size:
        return pixels
    if fit == "crop":
        pixels = F.center_crop(pixels, _largest_window(pixels.shape[1:], size))
    return F.resize(pixels, size, antialias=True)


def to_unit(pixels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bytes 0…255 as numbers -1…1 of the default dtype."""
    return pixels.to(torch.get_default_dtype()) / 127.5 - 1


def write_image(image: Float[Tensor, "c h w"], file: Path, *, size: Sequence[int] | None = None) -> None:
    """Write an image with values in [-1, 1], clamped for display; the file appears whole or not at all.

    Args:
        image: the image.
        file: where to; always PNG, and the same image always gives the same bytes.
        size: (height, width) to resize to before.
    """
    if size is not None and tuple(size) != tuple(image.shape[1:]):
        image = F.resize(image, list(size), antialias=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    # a digest: the name itself may be as long as names can be
    partial = file.with_name(f".{zlib.crc32(os.fsencode(file.name)):08x}.{os.getpid()}.partial")
    try:
        F.to_pil_image(((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()).save(partial, format="png")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """An image whose size is known to be bearable; whatever a damaged file raises becomes an OSError of one line."""
    Image.init()
    try:
        # a pipe would never end
        if not file.is_file():
            raise OSError(f"{file} is not a file")
        with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
            yield image
    except (OSError, ValueError):
        raise
    except Exception as error:  # decoders raise what they stumble over: SyntaxError, struct.error, zlib.error, …
        raise OSError(f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}") from error


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known")
    if image.mode.startswith("I"):
        grey = np.asarray(image).clip(0, 65535)
        # Pillow would clip 16-bit grey at 255 instead of scaling it; 32 bits may hold 8 or 16
        deep = image.mode != "I" or grey.max() > 255
        return Image.fromarray((grey // 256 if deep else grey).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _largest_window(shape: Sequence[int], size: Sequence[int]) -> list[int]:
    """Largest height and width inside an image that have the proportions of ``size``."""
    scale = min(have / want for have, want in zip(shape, size, strict=True))
    return [max(1, min(have, round(scale * want))) for have, want in zip(shape, size, strict=True)]
