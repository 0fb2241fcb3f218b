"""Keeps the model as it stood at the end of each stage."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

__all__ = ["StageCheckpoint"]


class StageCheckpoint(Callback):
    """Saves ``stage-NAME.ckpt`` when ``module.stage`` moves on, so that stages can be compared afterwards.

    Args:
        folder: where the checkpoints go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stage: str | None = None

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Remember the stage that this step belongs to."""
        self.stage = module.stage

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Save when the next step belongs to another stage; the last stage is the final checkpoint's."""
        if module.stage != self.stage and trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self.folder / f"stage-{self.stage}.ckpt")
