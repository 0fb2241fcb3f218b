"""The loader of the particle sampler, whose data are made by the sampler itself."""

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from sbflow.target import Target

__all__ = ["ParticleData"]


class ParticleData(LightningDataModule):
    """An epoch is the training between two refreshes of the particles; its batches are only counted.

    Args:
        target: the density, of which only the dimension is read.
        refresh_every: optimiser steps on one pool of particles.
    """

    def __init__(self, target: Target, *, refresh_every: int = 100) -> None:
        super().__init__()
        if refresh_every < 1:
            raise ValueError(f"refresh_every must be at least 1, got {refresh_every}")
        self.event_shape = (target.dim,)
        self.refresh_every = refresh_every

    def train_dataloader(self) -> DataLoader[int]:
        """Number the steps of one refresh."""
        return DataLoader(range(self.refresh_every), batch_size=None)
