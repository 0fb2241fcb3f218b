"""Two unpaired sets of samples, served as independent batches."""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sbflow.tensor import seeded_generator

__all__ = ["Samples", "Sources", "Split", "UnpairedBatches", "UnpairedData", "UnpairedTensors"]


class Split(NamedTuple):
    """Samples of both ends, with class labels where they are known.

    Attributes:
        x0: samples of π₀, shape ``[n0, *event]``; images lie in [-1, 1].
        x1: samples of π₁, shape ``[n1, *event]``; n1 need not equal n0.
        labels0: integer class of each x0 ``[n0]``, or None.
        labels1: integer class of each x1 ``[n1]``, or None; classes of the two ends are numbered separately, from 0.
    """

    x0: Tensor
    x1: Tensor
    labels0: Tensor | None = None
    labels1: Tensor | None = None


@runtime_checkable
class Samples(Protocol):
    """Samples of one end that need not lie in memory."""

    def __len__(self) -> int:
        """How many there are."""

    def draw(self, index: Int[Tensor, " n"], generator: torch.Generator) -> Tensor:
        """Read some of them ``[n, *event]``, with random changes from the generator where there are any."""


class Sources(NamedTuple):
    """What the training batches are drawn from.

    Attributes:
        x0: samples of π₀, in memory or not.
        x1: samples of π₁.
    """

    x0: Tensor | Samples
    x1: Tensor | Samples


class UnpairedBatches(Dataset[dict[str, Tensor]]):
    """Item k is the k-th batch, drawn with replacement and independently from both sets.

    A batch is a function of (seed, rank, k) alone, so that a resumed run sees the batches that the undisturbed run
    would have seen, whatever the number of workers.
    """

    def __init__(
        self, split: Split | Sources, batch_size: int, num_batches: int, seed: int = 0, start: int = 0, rank: int = 0
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.num_batches = num_batches
        self.seed = seed
        self.start = start
        self.rank = rank

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        if not 0 <= k < self.num_batches:
            raise IndexError(k)
        generator = seeded_generator(self.seed, self.rank, self.start + k)
        return {"x0": self._draw(self.split.x0, generator), "x1": self._draw(self.split.x1, generator)}

    def _draw(self, x: Tensor | Samples, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(x), (self.batch_size,), generator=generator)
        return x[index] if isinstance(x, Tensor) else x.draw(index, generator)


class UnpairedData(LightningDataModule):
    """Base of the unpaired data sets: a subclass writes `load_split`, and `prepare_data` where there is a download.

    Args:
        batch_size: samples of each end per training step and process.
        num_workers: data-loading processes; 0 is right for sets held in memory. It does not change the batches.
        seed: seed of the batch order.
    """

    def __init__(self, *, batch_size: int = 128, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        for name, value in (("num_workers", num_workers), ("seed", seed)):
            if value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._splits: dict[str, Split] = {}

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Load one split into memory: all of it, or a fixed random subset of what is too large."""
        raise NotImplementedError

    def split(self, split: Literal["train", "test"]) -> Split:
        """Return one split, loaded at the first call."""
        if split not in self._splits:
            self._splits[split] = self.load_split(split)
        return self._splits[split]

    def sources(self) -> Sources:
        """Everything that the training batches are drawn from; a subclass says so where that is not the split."""
        split = self.split("train")
        return Sources(split.x0, split.x1)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.split("train").x0.shape[1:])

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """As many batches as the trainer takes, in one epoch.

        A resumed run begins with the batch after its last step. The loader is then longer than what is left, since
        Lightning goes on counting batches where the checkpoint stopped.
        """
        start, total = 0, 1000
        rank = 0
        if self.trainer is not None:
            start = self.trainer.global_step * self.trainer.accumulate_grad_batches
            total = self.trainer.max_steps * self.trainer.accumulate_grad_batches
            rank = self.trainer.global_rank
        batches = UnpairedBatches(
            self.sources(), self.batch_size, max(total, 1), seed=self.seed, start=start, rank=rank
        )
        return DataLoader(batches, batch_size=None, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """A few fixed batches of the test split, the same at every validation."""
        split = self.split("test")
        batches = UnpairedBatches(Sources(split.x0, split.x1), 256, 4, seed=self.seed)
        return DataLoader(batches, batch_size=None)


class UnpairedTensors(UnpairedData):
    """Two tensors held in memory, in the default floating dtype.

    Args:
        x0: samples of π₀ ``[n0, *event]``.
        x1: samples of π₁ ``[n1, *event]``.
        **kwargs: see `UnpairedData`.

    Raises:
        ValueError: the two sets are empty, of different event shape, not real, or not finite.
    """

    def __init__(self, x0: Tensor | np.ndarray, x1: Tensor | np.ndarray, **kwargs: int) -> None:
        super().__init__(**kwargs)
        x0, x1 = (_real(name, x).detach().to(torch.get_default_dtype()) for name, x in (("x0", x0), ("x1", x1)))
        for name, x in (("x0", x0), ("x1", x1)):
            if x.ndim < 2 or len(x) == 0:
                raise ValueError(f"{name} must have shape [n, *event] with n >= 1, got {list(x.shape)}")
            if not x.isfinite().all():
                raise ValueError(f"{name} holds NaN or infinite values")
        if x0.shape[1:] != x1.shape[1:]:
            raise ValueError(
                f"x0 and x1 must share their event shape, got {list(x0.shape[1:])} and {list(x1.shape[1:])}"
            )
        self.tensors = Split(x0, x1)

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Return the same tensors for both splits."""
        return self.tensors


def _real(name: str, x: Tensor | np.ndarray) -> Tensor:
    """Samples as a tensor of real numbers; arrays of any byte order and with reversed axes are copied."""
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "biuf":
            raise ValueError(f"{name} must hold real numbers, got an array of {x.dtype}")
        x = x.astype(x.dtype.newbyteorder("="), copy=any(stride < 0 for stride in x.strides), order="C")
    tensor = torch.as_tensor(x)
    if tensor.is_complex():
        raise ValueError(f"{name} must hold real numbers, got a tensor of {tensor.dtype}")
    return tensor
