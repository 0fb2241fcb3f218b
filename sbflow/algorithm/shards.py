"""Weights in shards over several devices, for a network that fits no single one."""

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

__all__ = ["FullySharded", "shard"]


class FullySharded(ModelParallelStrategy):
    """Every device holds a part of the weights, their gradients, the optimiser's state and the average (FSDP).

    The batches are those of data parallel training. Checkpoints are whole, and the same as without shards.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Let all devices of all machines take part."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(module: nn.Module, mesh: Any, *, least: int = 1_000_000) -> None:
    """Cut the weights of a module over the devices of a mesh, in place; its forward gathers them piece by piece.

    Args:
        module: called by its forward alone.
        mesh: the strategy's mesh of devices.
        least: weights of a submodule that is gathered apart; smaller ones come with the module that they belong to.
    """
    from torch.distributed.fsdp import fully_shard

    devices = mesh["data_parallel"]
    for part in module.modules():
        if isinstance(part, nn.ModuleList) or part is module:
            continue
        if sum(weights.numel() for weights in part.parameters()) >= least and not _large(part, least):
            fully_shard(part, mesh=devices)
    # the average is updated weight by weight right after a rollout, when both must lie in shards
    fully_shard(module, mesh=devices, reshard_after_forward=True)


def _large(part: nn.Module, least: int) -> bool:
    """Whether one of its own parts will be cut."""
    return any(sum(weights.numel() for weights in child.parameters()) >= least for child in part.children())
