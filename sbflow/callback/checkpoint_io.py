"""Checkpoint files: written whole, with the one before kept, and marked with their format."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from sbflow.atomic import replacing

__all__ = ["FORMAT", "AtomicCheckpointIO"]

FORMAT = 1
"""Layout of checkpoints and exports; sbflow 0.1 wrote none, which counts as 0."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, syncs and renames it; ``last.ckpt`` leaves ``previous.ckpt`` behind."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: the disk is full or not writable; the checkpoint from before is untouched.
        """
        file = Path(path)
        keep = file.with_name("previous.ckpt") if file.name == "last.ckpt" else None
        with replacing(file, keep=keep) as handle:
            try:
                torch.save({**checkpoint, "sbflow_format": FORMAT}, handle)
            except RuntimeError as error:
                # torch's writer hides the OSError of the file below it
                raise OSError(getattr(error.__context__, "errno", None), str(error).splitlines()[0]) from error
