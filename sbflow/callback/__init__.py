"""Callbacks of the trainer, its logger and its checkpoint files."""

from sbflow.callback.checkpoint_io import FORMAT, AtomicCheckpointIO
from sbflow.callback.checkpoints import Checkpoints
from sbflow.callback.metrics_file import MetricsFile
from sbflow.callback.progress import Progress
from sbflow.callback.rank_states import RankStates
from sbflow.callback.stage_checkpoint import StageCheckpoint

__all__ = [
    "FORMAT",
    "AtomicCheckpointIO",
    "Checkpoints",
    "MetricsFile",
    "Progress",
    "RankStates",
    "StageCheckpoint",
]
