"""Unpaired images in files: which belong to which end and split is a subclass's business, the rest is done here."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sbflow.data.augmentation import Augmentation
from sbflow.data.image_store import Decoded, ImageSamples, Listing, check_images, decode_to_file, decode_to_memory
from sbflow.data.images import Fit, image_files
from sbflow.data.unpaired import Sources, Split, UnpairedData
from sbflow.tensor import seeded_generator

__all__ = ["Files", "ImageData", "held_out", "list_folder"]

GIB = 2**30
LEAST_TEST = 4  # a metric halves the test images, and a variance needs two


class Files(NamedTuple):
    """Images of one end and split.

    Attributes:
        option: the option that says where they are, for messages.
        folder: where they are.
        names: relative to it, in a fixed order.
    """

    option: str
    folder: Path
    names: Sequence[Path]


class ImageData(UnpairedData):
    """Base of the image data sets: a subclass writes `files`.

    Files that cannot be decoded are skipped with a warning that counts and names them.

    Args:
        size: (height, width) of the samples in pixels, or the side of square ones.
        channels: 1 for grey, 3 for colour.
        fit: ``"crop"`` keeps an image's proportions and cuts what stands out at the sides, ``"stretch"`` distorts.
        flip: reflect a random half of each training batch, left to right.
        crop_margin: training images are read this many pixels larger than ``size`` and cut at a random place.
        cache: ``"memory"`` decodes all training images once, one byte per value; ``"none"`` at each use, for which
            ``num_workers`` helps; any other word is a folder for a file of decoded images, which the next run finds
            again.
        memory_gb: GiB that the cached images of both ends may take in memory, and likewise the tensors that `split`
            returns; of a larger set these are a fixed random subset.
        **kwargs: see `UnpairedData`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        size: int | Sequence[int] = 64,
        channels: int = 3,
        fit: Fit = "crop",
        flip: bool = False,
        crop_margin: int = 0,
        cache: str = "memory",
        memory_gb: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}")
        if fit not in ("stretch", "crop"):
            raise ValueError(f"fit must be 'stretch' or 'crop', got {fit!r}")
        if crop_margin < 0:
            raise ValueError(f"crop_margin must be at least 0, got {crop_margin}")
        if not cache:
            raise ValueError("cache must be 'memory', 'none' or a folder, got ''")
        if not memory_gb > 0:
            raise ValueError(f"memory_gb must be positive, got {memory_gb}")
        self.shape = (channels, *_height_and_width(size))
        self.fit = fit
        self.augmentation = Augmentation(crop_margin, flip)
        self.cache = cache
        self.memory_gb = memory_gb
        self._samples: dict[str, tuple[ImageSamples, ImageSamples]] = {}

    def files(self, split: Literal["train", "test"]) -> tuple[Files, Files]:
        """Images of both ends of a split.

        Raises:
            FileNotFoundError: they are not there.
        """
        raise NotImplementedError

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample, known before an image is read."""
        return self.shape

    def prepare_data(self) -> None:
        """Look whether the images are there, and decode those for training, before anything else is built."""
        for split in ("train", "test"):
            self.files(split)
        self._read("train")

    def sources(self) -> Sources:
        """All training images, changed at random when they are drawn."""
        return Sources(*self._read("train"))

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Images of both ends as they are, or a fixed random subset of as many as `memory_gb` allows.

        Raises:
            ValueError: an end has fewer than two readable images for training or none for testing, or the cache does
                not fit in memory.
        """
        return Split(*(self._tensor(end, samples) for end, samples in enumerate(self._read(split))))

    def _tensor(self, end: int, samples: ImageSamples) -> Tensor:
        """As many images as may lie in memory, a thousand at a time."""
        nbytes = torch.get_default_dtype().itemsize * torch.Size(self.shape).numel()
        room = max(2, int(0.5 * self.memory_gb * GIB / nbytes))
        chosen = torch.randperm(len(samples), generator=seeded_generator(0, end))[:room].sort().values
        return torch.cat([samples.plain(piece) for piece in chosen.split(1000)])

    def _read(self, split: Literal["train", "test"]) -> tuple[ImageSamples, ImageSamples]:
        """Readable images of both ends, decoded at the first call."""
        if split not in self._samples:
            ends = [self._decode(files, split) for files in self.files(split)]
            self._samples[split] = (ends[0], ends[1])
        return self._samples[split]

    def _decode(self, files: Files, split: Literal["train", "test"]) -> ImageSamples:
        margin = self.augmentation.margin
        shape = (self.shape[0], self.shape[1] + margin, self.shape[2] + margin)
        decoded = self._cached(Listing(files.folder, files.names, shape, self.fit), files.option)
        if decoded.skipped:
            warnings.warn(decoded.report(files.folder), stacklevel=2)
        least = 2 if split == "train" else 1
        if len(decoded.rows) < least:
            raise ValueError(
                f"{files.option}={files.folder} must hold at least {least} readable images for the {split} split, "
                f"got {len(decoded.rows)} and {len(decoded.skipped)} that cannot be read"
            )
        return ImageSamples(decoded, self.augmentation)

    def _cached(self, listing: Listing, option: str) -> Decoded:
        if self.cache == "none":
            return check_images(listing)
        if self.cache != "memory":
            return decode_to_file(listing, Path(self.cache))
        if listing.nbytes > 0.5 * self.memory_gb * GIB:
            raise ValueError(
                f"the {len(listing.names)} images of {option} take {listing.nbytes / GIB:.2f} GiB, more than half of "
                f"memory_gb={self.memory_gb:g}: raise it, or set cache to a folder or to none"
            )
        return decode_to_memory(listing)


def list_folder(option: str, folder: str | Path) -> Files:
    """All images under a folder, with a warning that names the links that lead out of it.

    Raises:
        FileNotFoundError: there is no such folder or no image in it.
    """
    left_out: list[Path] = []
    names = image_files(Path(folder), option=option, left_out=left_out)
    if left_out:
        named = ", ".join(map(str, left_out[:20]))
        warnings.warn(f"skipped {len(left_out)} links that lead out of {option}={folder}: {named}", stacklevel=2)
    return Files(option, Path(folder), names)


def held_out(files: Files, fraction: float, split: Literal["train", "test"]) -> Files:
    """The part of a folder that belongs to a split, by a hash of each name: it stays when other files come or go.

    With two images or more neither part is empty, and with eight or more at least four are for testing; with a fraction
    of 0 both parts are the whole folder.

    Args:
        files: the whole folder.
        fraction: expected share of the test split.
        split: which part.
    """
    if fraction == 0:
        return files
    order = sorted(files.names, key=_position)
    count = sum(_position(name) < fraction for name in order)
    least = LEAST_TEST if len(order) >= 2 * LEAST_TEST else 1
    count = min(max(count, least), max(len(order) - 1, 1))
    part = order[:count] if split == "test" else order[count:]
    return files._replace(names=sorted(part))


def _position(name: Path) -> float:
    """A number in [0, 1) that depends on the name alone."""
    # a file name need not be UTF-8
    return int.from_bytes(hashlib.sha256(os.fsencode(name.as_posix())).digest()[:6]) / 2**48


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise ValueError(f"size must be an int or two ints, height and width, got {sides}")
    height, width = sides
    if min(height, width) < 4:
        raise ValueError(f"size must be at least 4 pixels in height and width, got {height} x {width}")
    return height, width
