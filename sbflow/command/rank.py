"""Which of several processes this is, known before any of them has met another."""

import os

__all__ = ["first_process"]

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Where Lightning, torchrun and SLURM number the processes of a command; a first one has the number 0 in all."""


def first_process() -> bool:
    """Whether this process is the one that makes the run folder, prints, measures and draws."""
    return not any(os.environ.get(name, "0").strip("0") for name in RANKS)
