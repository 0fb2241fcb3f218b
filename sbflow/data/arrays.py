"""Two arrays in files."""

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sbflow.data.unpaired import Sources, Split, UnpairedData
from sbflow.tensor import seeded_generator

__all__ = ["ArrayFiles", "read_array"]

GIB = 2**30
BLOCK = 2**24  # values looked at at once


class ArrayFiles(UnpairedData):
    """Samples in the rows of two ``.npy``, ``.npz`` or ``.pt`` files, cast to the default floating dtype.

    A ``.npy`` or ``.pt`` file is mapped into memory, not read whole. Bytes (uint8) are pixels: 0…255 become -1…1, with
    axes [n, h, w], [n, c, h, w] or [n, h, w, c]. No file can run code: pickled objects are refused.

    Args:
        x0: file of the samples of π₀ ``[n0, *event]``.
        x1: file of the samples of π₁ ``[n1, *event]``; n1 need not equal n0.
        key0: name of the array where the file of x0 holds several.
        key1: the same of x1.
        test_fraction: share of the rows, a fixed random choice, that is kept for testing; 0 tests on the training rows.
        memory_gb: GiB that the tensors of a split may take; of larger arrays they are a fixed random subset.
        **kwargs: see `UnpairedData`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        x0: str | Path,
        x1: str | Path,
        *,
        key0: str | None = None,
        key1: str | None = None,
        test_fraction: float = 0.1,
        memory_gb: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= test_fraction < 1:
            raise ValueError(f"test_fraction must lie in [0, 1), got {test_fraction}")
        if not memory_gb > 0:
            raise ValueError(f"memory_gb must be positive, got {memory_gb}")
        self.paths = (Path(x0), Path(x1))
        self.keys = (key0, key1)
        self.test_fraction = test_fraction
        self.memory_gb = memory_gb
        self._arrays: tuple[Tensor, Tensor] | None = None

    def prepare_data(self) -> None:
        """Open and check both files before anything else is built."""
        self._read()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self._read()[0].shape[1:])

    def sources(self) -> Sources:
        """All training rows."""
        ends = enumerate(self._read())
        x0, x1 = (_Rows(array, _chosen(len(array), end, self.test_fraction, "train")) for end, array in ends)
        return Sources(x0, x1)

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Rows of both ends, or a fixed random subset of as many as `memory_gb` allows.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file holds something else, or the two event shapes differ.
        """
        return Split(*(self._tensor(end, array, split) for end, array in enumerate(self._read())))

    def _tensor(self, end: int, array: Tensor, split: Literal["train", "test"]) -> Tensor:
        nbytes = torch.get_default_dtype().itemsize * array[0].numel()
        room = max(2, int(0.5 * self.memory_gb * GIB / nbytes))
        rows = _chosen(len(array), end, self.test_fraction, split)
        return _as_samples(array[rows[:room].sort().values])

    def _read(self) -> tuple[Tensor, Tensor]:
        if self._arrays is None:
            x0, x1 = (read_array(path, key, f"x{end}") for end, (path, key) in enumerate(self._files()))
            if x0.shape[1:] != x1.shape[1:]:
                shapes = f"{list(x0.shape[1:])} and {list(x1.shape[1:])}"
                raise ValueError(f"x0 and x1 must share their event shape, got {shapes}")
            self._arrays = (x0, x1)
        return self._arrays

    def _files(self) -> list[tuple[Path, str | None]]:
        return list(zip(self.paths, self.keys, strict=True))


class _Rows:
    """Some rows of an array, cast when they are drawn."""

    def __init__(self, array: Tensor, rows: Int[Tensor, " n"]) -> None:
        self.array = array
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, index: Int[Tensor, " n"], generator: torch.Generator) -> Tensor:
        return _as_samples(self.array[self.rows[index]])


def read_array(path: Path, key: str | None, option: str) -> Tensor:
    """Map an array into memory and check that it can serve as samples.

    Args:
        path: a ``.npy``, ``.npz`` or ``.pt`` file.
        key: name of the array in a file of several; not needed where there is one.
        option: what the file is called in the messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or holds no finite samples.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{option}={path} is no file")
    try:
        content = _load(path)
    except Exception as error:  # numpy and torch raise many kinds for damaged files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        # numpy takes whatever it does not know for a pickle, and advises to trust it
        reason = "its content is none of these" if "pickle" in reason else reason
        raise ValueError(f"{option}={path} must be a .npy, .npz or .pt file of numbers: {reason}") from error
    return _checked(_select(content, key, f"{option}={path}", f"key{option[1:]}"), f"{option}={path}")


def _load(path: Path) -> Any:
    if path.suffix == ".pt":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if zipfile.is_zipfile(path):
        return np.load(path, allow_pickle=False)
    # copy on write: torch warns of arrays that cannot be written to
    return np.load(path, mmap_mode="c", allow_pickle=False)


def _select(content: Any, key: str | None, what: str, option: str) -> Tensor:
    """The array that is meant, of a file that holds one or several."""
    if isinstance(content, np.ndarray | Tensor):
        if key is not None:
            raise ValueError(f"{what} holds one array without a name; leave out {option}={key}")
        return _as_tensor(content)
    names = list(content) if hasattr(content, "keys") else []
    if key is None and len(names) == 1:
        key = names[0]
    if key not in names:
        raise ValueError(f"{what} holds the arrays {', '.join(map(str, names)) or 'none'}; choose one with {option}")
    try:
        return _as_tensor(content[key])
    except Exception as error:
        raise ValueError(f"{what}: {key} must be an array of numbers: {str(error).splitlines()[0]}") from error


def _as_tensor(x: np.ndarray | Tensor) -> Tensor:
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))
    return torch.as_tensor(x)


def _checked(x: Tensor, what: str) -> Tensor:
    if x.ndim < 2 or len(x) < 2 or 0 in x.shape or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{what} must hold real numbers [n, *event] with n >= 2, got {x.dtype} of {list(x.shape)}")
    if x.dtype in (torch.uint16, torch.uint32, torch.uint64):
        x = x.to(torch.get_default_dtype())  # torch cannot index these
    if x.dtype == torch.uint8:
        return _channels_first(x, what)
    if x.is_floating_point() and not all(bool(rows.isfinite().all()) for rows in x.split(_rows_per_block(x))):
        raise ValueError(f"{what} holds NaN or infinite values")
    return x


def _channels_first(x: Tensor, what: str) -> Tensor:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise ValueError(f"{what} holds bytes, hence pixels, and must be [n, h, w], [n, c, h, w] or [n, h, w, c], "
                         f"got {list(x.shape)}")  # fmt: skip
    return x.movedim(3, 1) if x.shape[3] in (1, 3) and x.shape[1] not in (1, 3) else x


def _rows_per_block(x: Tensor) -> int:
    return max(1, BLOCK // x[0].numel())


def _as_samples(x: Tensor) -> Tensor:
    numbers = x.to(torch.get_default_dtype())
    return numbers / 127.5 - 1 if x.dtype == torch.uint8 else numbers


def _chosen(n: int, end: int, fraction: float, split: Literal["train", "test"]) -> Int[Tensor, " m"]:
    """Rows of a split in a fixed random order; neither split is empty."""
    order = torch.randperm(n, generator=seeded_generator(0, end))
    if fraction == 0:
        return order
    count = min(max(round(fraction * n), 1), n - 1)
    return order[:count] if split == "test" else order[count:]
