"""Files that appear whole or not at all."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copyfile
from typing import BinaryIO

__all__ = ["remove_partial_files", "replacing"]


@contextmanager
def replacing(file: Path, *, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Write a file beside ``file``, then put it in its place: at no moment is ``file`` half written.

    Args:
        file: what to replace or create; missing folders are made.
        keep: name under which the file from before is kept.

    Raises:
        OSError: the disk is full or not writable; ``file`` is as it was.
    """
    partial = _partial(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if keep is not None and file.exists():
            _keep(file, keep)
        partial.replace(file)
        _sync_folder(file.parent)
    except OSError as error:
        before = "; the file from before is untouched" if file.exists() else ""
        raise OSError(error.errno, f"cannot write {file}: {error.strerror or error}{before}") from error
    finally:
        # nothing is left of it after a success; a full disk may refuse even this
        for leftover in filter(None, (partial, keep and _partial(keep))):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left half written under a folder, and nothing that a living one is writing."""
    for file in folder.rglob(".*.partial"):
        process = re.search(r"\.(\d+)\.partial$", file.name)
        if process and not _alive(int(process[1])):
            file.unlink(missing_ok=True)


def _partial(file: Path) -> Path:
    """Where a file is written until it is whole."""
    return file.with_name(f".{file.name}.{os.getpid()}.partial")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return process != os.getpid()


def _keep(file: Path, name: Path) -> None:
    """A second name for the present file, without a moment at which it has none."""
    partial = _partial(name)
    partial.unlink(missing_ok=True)
    try:
        os.link(file, partial)
    except OSError:
        # not every file system has hard links
        copyfile(file, partial)
    partial.replace(name)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where folders can be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
