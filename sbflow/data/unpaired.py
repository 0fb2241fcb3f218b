"""Two unpaired sets of samples, served as independent batches."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sbflow.tensor import seeded_generator

__all__ = ["Split", "UnpairedBatches", "UnpairedData", "UnpairedTensors"]


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


class UnpairedBatches(Dataset[dict[str, Tensor]]):
    """Item k is the k-th batch, drawn with replacement and independently from both sets.

    A batch is a function of (seed, rank, k) alone, so that a resumed run sees the batches that the undisturbed run
    would have seen, whatever the number of workers.
    """

    def __init__(
        self, split: Split, batch_size: int, num_batches: int, seed: int = 0, start: int = 0, rank: int = 0
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
        return {
            name: x[torch.randint(len(x), (self.batch_size,), generator=generator)]
            for name, x in (("x0", self.split.x0), ("x1", self.split.x1))
        }


class UnpairedData(LightningDataModule):
    """Base of the unpaired data sets: a subclass writes `load_split`, and `prepare_data` where there is a download.

    Args:
        batch_size: samples of each end per training step and process.
        num_workers: data-loading processes; 0 is right for sets held in memory.
        seed: seed of the batch order.
    """

    def __init__(self, *, batch_size: int = 128, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._splits: dict[str, Split] = {}

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Load one split into memory."""
        raise NotImplementedError

    def split(self, split: Literal["train", "test"]) -> Split:
        """Return one split, loaded at the first call."""
        if split not in self._splits:
            self._splits[split] = self.load_split(split)
        return self._splits[split]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.split("train").x0.shape[1:])

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """As many batches as the trainer still has to take, in one epoch."""
        start, total = 0, 1000
        rank = 0
        if self.trainer is not None:
            start = self.trainer.global_step * self.trainer.accumulate_grad_batches
            total = self.trainer.max_steps * self.trainer.accumulate_grad_batches
            rank = self.trainer.global_rank
        batches = UnpairedBatches(
            self.split("train"), self.batch_size, max(total - start, 0), seed=self.seed, start=start, rank=rank
        )
        return DataLoader(batches, batch_size=None, num_workers=self.num_workers)


class UnpairedTensors(UnpairedData):
    """Two tensors held in memory, in the default floating dtype.

    Args:
        x0: samples of π₀ ``[n0, *event]``.
        x1: samples of π₁ ``[n1, *event]``.
        **kwargs: see `UnpairedData`.

    Raises:
        ValueError: the two sets are empty, of different event shape, or not finite.
    """

    def __init__(self, x0: Tensor | np.ndarray, x1: Tensor | np.ndarray, **kwargs: int) -> None:
        super().__init__(**kwargs)
        x0, x1 = (torch.as_tensor(x).detach().to(torch.get_default_dtype()) for x in (x0, x1))
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
