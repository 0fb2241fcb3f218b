"""Writing of measured numbers, with the machine and the commit that they come from."""

import csv
import functools
import os
import platform
import subprocess
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def write_rows(name: str, rows: list[dict]) -> Path:
    """Append rows to ``results/NAME``.

    Raises:
        ValueError: the file has other columns.
    """
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / name
    origin = {
        "machine": _machine(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "torch": torch.__version__,
    }
    columns, known = [*rows[0], *origin], read_rows(name)
    if known and list(known[0]) != columns:
        raise ValueError(f"{file} has the columns {list(known[0])}, not {columns}: move it away")
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        if not known:
            writer.writeheader()
        writer.writerows(row | origin for row in rows)
    return file


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores"


@functools.cache
def _commit() -> str:
    """As it was before the first row was written into a table that is under version control."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, cwd=RESULTS.parent).stdout.strip() or "unknown"


def read_rows(name: str) -> list[dict[str, str]]:
    """Rows of ``results/NAME`` so far."""
    file = RESULTS / name
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))
