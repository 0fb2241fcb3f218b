"""``sbflow check``: the library against closed forms, on this machine."""

import platform
import sys
import time

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from sbflow.command.build import check_type
from sbflow.command.device import find_device
from sbflow.selfcheck import Measurement, measurements

__all__ = ["check"]


def check(config: DictConfig) -> int:
    """Print every measured number beside its closed form and return how many there are; exit with 1 on a failure."""
    check_type("device", config.device, str)
    check_type("seed", config.seed, int)
    device, start = find_device(config.device), time.perf_counter()
    found = list(measurements(device=device, seed=config.seed))
    _print(found, f"torch {torch.__version__}, {device}, {platform.machine()}, seed {config.seed}")
    failed = sum(not one.passed for one in found)
    print(f"{len(found) - failed} of {len(found)} checks passed in {time.perf_counter() - start:.0f} s")
    if failed:
        sys.exit(1)
    return len(found)


def _print(found: list[Measurement], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("quantity", overflow="fold")
    for column in ("measured", "expected", "standard error"):
        table.add_column(column, justify="right")
    table.add_column("verdict", overflow="fold")
    for one in found:
        expected = f"{'< ' if one.relation == '<' else ''}{one.expected:.5g}"
        stderr = f"{one.stderr:.2g}" if one.stderr else "exact"
        table.add_row(one.name, f"{one.measured:.5g}", expected, stderr, one.verdict)
    # a file or a pipe has no width to keep to
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
