"""Handwritten digits and letters, read from the idx files of MNIST and its relatives."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision.datasets import EMNIST, MNIST

from sbflow.data.unpaired import Split, UnpairedData
from sbflow.target.dataset import data_root

__all__ = ["MNISTEMNIST", "MNISTLetters", "read_idx"]

MNIST_SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
EMNIST_SOURCE = "https://www.nist.gov/itl/products-and-services/emnist-dataset"
UNIPEN_SOURCE = "UNIPEN train_r01_v07, http://unipen.nici.ru.nl/cdroms/"
NUM_LETTERS = 5
UBYTE = 0x08


class MNISTLetters(UnpairedData):
    """MNIST digits (x0) and UNIPEN letters A–E, a–e (x1): white on black in [-1, 1], one channel.

    The letters are read from ``letters/letters-{train,test}-images-idx3-ubyte`` and their classes 0…9, in the order
    ABCDEabcde, from ``letters/letters-{train,test}-byclass-labels-idx1-ubyte``.

    Args:
        size: side of the square pictures in pixels; other than 28 they are resized with antialiasing.
        download: fetch MNIST where it is missing. The letters cannot be fetched.
        root: folder that holds ``MNIST/raw`` and ``letters``; by default the one that ``SBFLOW_DATA`` names.
        **kwargs: see `UnpairedData`.
    """

    def __init__(
        self, *, size: int = 28, download: bool = False, root: str | Path | None = None, **kwargs: int
    ) -> None:
        super().__init__(**kwargs)
        self.size = _checked_size(size)
        self.download = download
        self.root = data_root() if root is None else Path(root)

    def prepare_data(self) -> None:
        """Fetch MNIST where that is allowed."""
        _load_mnist(self.root, train=True, download=self.download)

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Read both ends.

        Raises:
            FileNotFoundError: a file is missing; the message says where it was looked for and where it comes from.
            ValueError: a file is damaged.
        """
        digits = _load_mnist(self.root, train=split == "train", download=self.download)
        letters = self._read_letters(f"letters-{split}-images-idx3-ubyte")
        labels = self._read_letters(f"letters-{split}-byclass-labels-idx1-ubyte")
        return Split(_to_images(digits.data, self.size), _to_images(letters, self.size), digits.targets, labels.long())

    def _read_letters(self, name: str) -> UInt8[Tensor, "..."]:
        path = self.root / "letters" / name
        if not path.is_file():
            raise FileNotFoundError(_missing("the letters", path, f"rasterised from {UNIPEN_SOURCE}"))
        return read_idx(path)


class MNISTEMNIST(UnpairedData):
    """MNIST digits (x0) and the letters A–E, a–e of EMNIST (x1), as in De Bortoli et al. 2024: [-1, 1], one channel.

    Labels of x1 are 0…4 for A…E with the cases merged, as in the split "letters" of EMNIST. Its images are stored
    transposed; here they are upright.

    Args:
        size: side of the square pictures in pixels; other than 28 they are resized with antialiasing.
        download: fetch what is missing (EMNIST is an archive of about 560 MB).
        root: folder that holds ``MNIST/raw`` and ``EMNIST/raw``; by default the one that ``SBFLOW_DATA`` names.
        **kwargs: see `UnpairedData`.

    References:
        Cohen, Afshar, Tapson, van Schaik, EMNIST: an extension of MNIST to handwritten letters, 2017.
    """

    def __init__(self, *, size: int = 28, download: bool = True, root: str | Path | None = None, **kwargs: int) -> None:
        super().__init__(**kwargs)
        self.size = _checked_size(size)
        self.download = download
        self.root = data_root() if root is None else Path(root)

    def prepare_data(self) -> None:
        """Fetch what is missing where that is allowed."""
        self.load_split("train")

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Read both ends.

        Raises:
            FileNotFoundError: a file is missing and was not fetched; the message says where it was looked for.
        """
        train = split == "train"
        digits = _load_mnist(self.root, train=train, download=self.download)
        letters = _load_emnist(self.root, train=train, download=self.download)
        chosen = letters.targets <= NUM_LETTERS
        images = letters.data[chosen].transpose(1, 2)
        return Split(
            _to_images(digits.data, self.size),
            _to_images(images, self.size),
            digits.targets,
            letters.targets[chosen] - 1,
        )


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """Read an idx file of unsigned bytes: two zero bytes, a type, the number of axes, their big-endian sizes, the data.

    Raises:
        ValueError: the file is no idx file of bytes, or is shorter or longer than its header says.
    """
    content = path.read_bytes()
    if len(content) < 4 or content[:3] != bytes([0, 0, UBYTE]):
        raise ValueError(f"{path} must be an idx file of unsigned bytes, got the first bytes {content[:4].hex(' ')!r}")
    offset = 4 + 4 * content[3]
    sizes = np.frombuffer(content[4:offset].ljust(offset - 4, b"\0"), dtype=">u4").tolist()
    expected = offset + math.prod(sizes)
    if len(content) < offset or len(content) != expected:
        raise ValueError(f"{path} must hold {expected} bytes for axes of {sizes}, got {len(content)}: fetch it again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=offset).reshape(sizes)


def _load_mnist(root: Path, *, train: bool, download: bool) -> MNIST:
    return _load("MNIST", lambda: MNIST(root, train=train, download=download), root / "MNIST" / "raw", MNIST_SOURCE)


def _load_emnist(root: Path, *, train: bool, download: bool) -> MNIST:
    def load() -> MNIST:
        return EMNIST(root, split="letters", train=train, download=download)

    return _load("EMNIST letters", load, root / "EMNIST" / "raw", EMNIST_SOURCE)


def _load(name: str, load: Callable[[], MNIST], path: Path, source: str) -> MNIST:
    try:
        return load()
    except (RuntimeError, OSError) as error:  # what torchvision raises when files are missing and when a download fails
        raise FileNotFoundError(_missing(name, path, f"{source}; download=true fetches it")) from error


def _missing(name: str, path: Path, source: str) -> str:
    return f"{name} not found in {path}: set SBFLOW_DATA to the folder that holds the data (source: {source})"


def _checked_size(size: int) -> int:
    if size < 8:
        raise ValueError(f"size must be at least 8, got {size}")
    return size


def _to_images(x: UInt8[Tensor, "n h w"], size: int) -> Float[Tensor, "n 1 size size"]:
    images = x[:, None].float() / 127.5 - 1
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True).clamp(-1, 1)
