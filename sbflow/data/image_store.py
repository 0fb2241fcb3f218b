"""Images of a folder as bytes of one shape: in memory, in a file on disk, or decoded whenever they are drawn.

Every file is decoded once before training begins, so that a damaged one is found then and not in step 70,000. The file
on disk is named by a digest of the names, sizes and times of the images and of how they are read; it appears whole or
not at all, and a changed folder makes another one.
"""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sbflow.data.augmentation import Augmentation
from sbflow.data.images import Fit, read_pixels, to_unit

__all__ = ["Decoded", "ImageSamples", "ImageStore", "Listing", "check_images", "decode_to_file", "decode_to_memory"]

NAMED = 20


class Listing(NamedTuple):
    """Which images to read, and how.

    Attributes:
        folder: where they are.
        names: relative to it.
        shape: (channels, height, width) to read them in.
        fit: see `sbflow.data.images.read_pixels`.
    """

    folder: Path
    names: Sequence[Path]
    shape: tuple[int, int, int]
    fit: Fit

    def read(self, name: Path) -> UInt8[Tensor, "c h w"]:
        """Decode one image."""
        return read_pixels(self.folder / name, self.shape, fit=self.fit)

    @property
    def nbytes(self) -> int:
        """Size of all the images as bytes."""
        return len(self.names) * int(np.prod(self.shape))


@runtime_checkable
class ImageStore(Protocol):
    """Bytes of images, by their number."""

    def __getitem__(self, index: Int[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Read some of them."""


class Decoded(NamedTuple):
    """Readable images, and what became of the others.

    Attributes:
        store: bytes of the images.
        rows: numbers, in the store, of those that could be read.
        skipped: reason by name of those that could not.
    """

    store: ImageStore
    rows: Int[Tensor, " n"]
    skipped: dict[str, str]

    def report(self, folder: Path) -> str:
        """One line about the skipped images, which names the first of them."""
        named = ", ".join(f"{name} ({reason})" for name, reason in list(self.skipped.items())[:NAMED])
        more = f" and {len(self.skipped) - NAMED} more" if len(self.skipped) > NAMED else ""
        total = len(self.skipped) + len(self.rows)
        return f"skipped {len(self.skipped)} of {total} images in {folder} that cannot be read: {named}{more}"


class ImageSamples:
    """Readable images of one end as training samples, changed at random.

    Args:
        decoded: the images.
        augmentation: the changes.
    """

    def __init__(self, decoded: Decoded, augmentation: Augmentation) -> None:
        self.decoded = decoded
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.decoded.rows)

    def draw(self, index: Int[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Images in [-1, 1], changed at random."""
        return to_unit(self.augmentation(self.decoded.store[self.decoded.rows[index]], generator))

    def plain(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """Images in [-1, 1], the window in the middle."""
        return to_unit(self.augmentation.centre(self.decoded.store[self.decoded.rows[index]]))


class _OnDemand:
    """Decodes whatever is asked for."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing

    def __getitem__(self, index: Int[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        return torch.stack([self.listing.read(self.listing.names[i]) for i in index.tolist()])


def decode_to_memory(listing: Listing) -> Decoded:
    """Decode all images into memory."""
    pixels = torch.empty(len(listing.names), *listing.shape, dtype=torch.uint8)
    return _decoded(pixels, listing, _decode_each(listing, pixels.__setitem__))


def check_images(listing: Listing) -> Decoded:
    """Decode all images once to find the damaged ones, and again whenever they are drawn."""
    return _decoded(_OnDemand(listing), listing, _decode_each(listing, lambda row, pixels: None))


def decode_to_file(listing: Listing, folder: Path) -> Decoded:
    """Decode all images into a file, unless a run before has done so, and map it into memory.

    Args:
        listing: the images.
        folder: where the file is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{_digest(listing)}.npy"
    notes = file.with_suffix(".json")
    kept = _kept(file, notes)
    if kept is None:
        # processes of several machines may share the folder, and a number
        partial = file.with_name(f".{file.name}.{platform.node()}.{os.getpid()}.partial")
        skipped = _write_pixels(listing, partial)
        partial.replace(file)
        partial.write_text(json.dumps(skipped))
        partial.replace(notes)
        kept = _mapped(file), skipped
    return _decoded(kept[0], listing, kept[1])


def _kept(file: Path, notes: Path) -> tuple[Tensor, dict[str, str]] | None:
    """Images and skipped files of a run before, or None; what was cut short since then counts as nothing."""
    try:
        # the notes are written last: where they are, the images are whole
        return _mapped(file), json.loads(notes.read_text())
    except (OSError, ValueError, EOFError):
        return None


def _mapped(file: Path) -> Tensor:
    # copy on write: torch warns of arrays that cannot be written to
    return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))


def _write_pixels(listing: Listing, file: Path) -> dict[str, str]:
    shape = (len(listing.names), *listing.shape)
    pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)

    def keep(row: int, image: Tensor) -> None:
        pixels[row] = image.numpy()

    try:
        skipped = _decode_each(listing, keep)
        pixels.flush()
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return skipped


def _decode_each(listing: Listing, keep: Callable[[int, Tensor], None]) -> dict[str, str]:
    """Decode every image, several at a time, and return the reason by name of those that cannot be read."""

    def decode(row: int) -> tuple[str, str] | None:
        try:
            keep(row, listing.read(listing.names[row]))
        except (OSError, ValueError) as error:
            return listing.names[row].as_posix(), str(error)
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        failures: Iterable[tuple[str, str] | None] = pool.map(decode, range(len(listing.names)))
        return dict(failure for failure in failures if failure)


def _decoded(store: ImageStore, listing: Listing, skipped: dict[str, str]) -> Decoded:
    rows = [row for row, name in enumerate(listing.names) if name.as_posix() not in skipped]
    return Decoded(store, torch.tensor(rows, dtype=torch.long), skipped)


def _digest(listing: Listing) -> str:
    """What the pixels depend on: a changed or added file gives another digest."""
    digest = hashlib.sha256(repr((str(listing.folder.resolve()), listing.shape, listing.fit)).encode())
    for name in listing.names:
        status = (listing.folder / name).stat()
        digest.update(repr((name.as_posix(), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:32]
