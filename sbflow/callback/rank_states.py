"""What belongs to one process alone, in checkpoints that the first process writes."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device

__all__ = ["RankStates"]


class RankStates(Callback):
    """Adds to a checkpoint what each of the other processes keeps beside the weights: its pool, or its buffer of pairs.

    A run that is resumed with as many processes goes on as the undisturbed one. Processes that are new begin with what
    the first one had, until they draw their own.
    """

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Gather the states; every process comes by here."""
        if trainer.world_size == 1:
            return
        own: dict[str, Any] = {}
        module.on_save_checkpoint(own)
        gathered = [{} for _ in range(trainer.world_size)] if trainer.is_global_zero else None
        torch.distributed.gather_object(move_data_to_device(own, torch.device("cpu")), gathered)
        if gathered is not None:
            checkpoint["other_ranks"] = gathered[1:]

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Hand its own state to each process but the first, which has it already."""
        states = checkpoint.get("other_ranks", [])
        if 0 < trainer.global_rank <= len(states):
            module.on_load_checkpoint(checkpoint | states[trainer.global_rank - 1])
