"""Metrics as a table on disk, one row per logged step."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from sbflow.atomic import replacing

__all__ = ["MetricsFile", "read_rows"]

Row = dict[str, Any]


class MetricsFile(Logger):
    """Writes ``metrics.csv``: every row at once, so that a killed run keeps what it logged.

    Args:
        file: the table.
        start: optimiser steps that are done; rows from there on, of a run that is now repeated, are dropped.
    """

    def __init__(self, file: Path, *, start: int = 0) -> None:
        super().__init__()
        self.file = file
        self.rows = [row for row in read_rows(file) if int(row["step"]) < start]
        self.columns = _columns(self.rows)
        if file.exists():
            self._rewrite()

    @property
    def name(self) -> str:
        """Not part of any path."""
        return ""

    @property
    def version(self) -> str:
        """Not part of any path."""
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The run folder holds the config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one row; metrics logged at the same step share it."""
        step = 0 if step is None else step
        if self.rows and int(self.rows[-1]["step"]) == step:
            self.rows[-1] |= metrics
            self.columns = _columns(self.rows)
            self._rewrite()
            return
        self.rows.append({"step": step, **metrics})
        if self.file.exists() and set(metrics) <= set(self.columns):
            self._append(self.rows[-1])
        else:
            self.columns = _columns(self.rows)
            self._rewrite()

    def _append(self, row: Row) -> None:
        with self.file.open("a", newline="") as lines:
            csv.DictWriter(lines, self.columns).writerow(row)

    @rank_zero_only
    def _rewrite(self) -> None:
        with replacing(self.file) as handle:
            handle.write(_text(self.columns, self.rows).encode())


def read_rows(file: Path) -> list[Row]:
    """Rows of a table; a last line that a kill cut short is left out."""
    if not file.is_file():
        return []
    with file.open(newline="", errors="replace") as lines:
        rows = list(csv.DictReader(line for line in lines if line.endswith("\n") and "\0" not in line))
    return [{name: value for name, value in row.items() if value} for row in rows if row.get("step", "").isdecimal()]


def _columns(rows: list[Row]) -> list[str]:
    names = {name for row in rows for name in row}
    return ["step", *sorted(names - {"step"})]


def _text(columns: list[str], rows: list[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
