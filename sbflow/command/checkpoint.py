"""Reading checkpoint files: plain data only, of a known format, and the one before where the newest is broken."""

import sys
from pathlib import Path
from typing import Any

import torch

from sbflow.callback import FORMAT
from sbflow.command.rank import first_process

__all__ = ["check_format", "newest_checkpoint", "read_checkpoint"]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU, without executing anything from it.

    Raises:
        ValueError: truncated, not a checkpoint, holding more than plain data, or of a newer format.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        found = _format(checkpoint)
    except Exception as error:
        raise ValueError(f"cannot load checkpoint {file}: {_reason(error)}") from error
    check_format(found, file)
    return checkpoint


def _format(checkpoint: Any) -> int:
    """Format of what was read, if it is a checkpoint at all."""
    if not isinstance(checkpoint, dict):
        raise TypeError(f"a {type(checkpoint).__name__}")
    state, found = checkpoint["state_dict"], checkpoint.get("sbflow_format", 0)
    if not isinstance(state, dict) or not isinstance(found, int):
        raise TypeError(f"weights in a {type(state).__name__}, format {found!r}")
    return found


def check_format(found: int, file: Path) -> None:
    """Refuse what a newer sbflow wrote.

    Raises:
        ValueError: names both formats and what to do.
    """
    if found > FORMAT:
        raise ValueError(f"{file} has format {found}, this sbflow reads up to {FORMAT}: upgrade sbflow to use it")


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest sound checkpoint of a ``checkpoints`` folder; None where no checkpoint was written yet.

    Raises:
        ValueError: there are checkpoints and none can be read.
    """
    files = [file for name in ("last", "previous") if (file := folder / f"{name}.ckpt").is_file()]
    broken = None
    for file in files:
        try:
            read_checkpoint(file)
        except ValueError as error:
            broken = broken or error
            continue
        if broken is not None and first_process():
            print(f"sbflow: {broken}; using {file.name} instead", file=sys.stderr)
        return file
    if broken is not None:
        raise broken
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError | TypeError | AttributeError):
        return "it is not a checkpoint of sbflow"
    if isinstance(error, EOFError | IndexError):
        return "it is no checkpoint, or cut short"
    if "weights_only" in str(error) or "Unsupported" in str(error):
        return "it holds more than plain data, and loading that could run code"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
