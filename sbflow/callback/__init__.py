"""Callbacks of the trainer."""

from sbflow.callback.progress import Progress
from sbflow.callback.stage_checkpoint import StageCheckpoint

__all__ = ["Progress", "StageCheckpoint"]
