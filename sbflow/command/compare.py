"""One table of many runs: what was set differently, and what came out."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from sbflow.atomic import replacing
from sbflow.command.run import WEIGHTS, read_config
from sbflow.figure import save_figure
from sbflow.figure.log_z_against_steps import log_z_against_steps
from sbflow.figure.runs import quality_over_runs, read_results

__all__ = ["compare", "runs_below"]

ESTIMATE = ("log_z", "log_z_stderr", "ess")
"""What is drawn of an estimate, which has two dozen numbers."""
LONGEST_HEAD = 12
BORDERS = 3
"""Of a column: a space on each side and a rule."""
NOT_COMPARED = ("run_dir", "resume", "trust")


def runs_below(folder: Path) -> list[Path]:
    """Run folders of a sweep, in the order of their numbers; none where the folder is itself a run."""
    if not folder.is_dir() or (folder / "config.yaml").exists() or (folder / WEIGHTS).exists():
        return []
    runs = [file.parent for file in folder.rglob("config.yaml")]
    return sorted(runs, key=lambda run: [(len(part), part) for part in run.relative_to(folder).parts])


def compare(folder: Path, runs: list[Path]) -> dict[str, float]:
    """Write ``runs.csv`` and figures beside the runs, print the table, and return how many runs were measured.

    Raises:
        ValueError: no run was measured yet.
    """
    measured = [run for run in runs if read_results(run)]
    for run in runs:
        if run not in measured:
            print(f"sbflow: {run} has no metrics yet: sbflow evaluate checkpoint={run}", file=sys.stderr)
    if not measured:
        raise ValueError(f"checkpoint={folder}: none of its {len(runs)} runs was measured")
    options = _differences([_options(run) for run in measured])
    rows = [
        {"run": str(run.relative_to(folder))} | chosen | read_results(run)
        for run, chosen in zip(measured, options, strict=True)
    ]
    _write(folder / "runs.csv", rows)
    _print(f"{len(rows)} runs -> {folder / 'runs.csv'}", rows)
    _draw(folder, measured, options[0])
    return {"runs": float(len(rows))}


def _options(run: Path) -> dict[str, Any]:
    config = OmegaConf.to_container(read_config(run, option="checkpoint"))
    return dict(_flat({name: part for name, part in config.items() if name not in NOT_COMPARED}))


def _flat(part: Any, path: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values; a list counts as one value."""
    if not isinstance(part, dict):
        return [(path, str(part) if isinstance(part, list) else part)]
    return [item for name, value in part.items() for item in _flat(value, f"{path}.{name}".lstrip("."))]


def _differences(options: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the options only those that are not the same in all runs, and of several wired to one value only the first."""
    names = dict.fromkeys(name for chosen in options for name in chosen)
    columns: dict[tuple[str, ...], str] = {}
    for name in names:
        values = tuple(str(chosen.get(name)) for chosen in options)
        # the saved config repeats a part wherever it is wired
        if len(set(values)) > 1 and (values not in columns or name.count(".") < columns[values].count(".")):
            columns[values] = name
    return [{name: chosen.get(name) for name in columns.values()} for chosen in options]


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    table.writeheader()
    table.writerows(rows)
    with replacing(file) as handle:
        handle.write(text.getvalue().encode())


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    """Runs side by side, as there are more metrics than runs: one column each, in as many tables as the width asks."""
    # values are shown as they are
    console = Console(markup=False, emoji=False, highlight=False)
    console.print(title, soft_wrap=True)
    names = list(dict.fromkeys(name for row in rows for name in row if name != "run"))
    first = ["", *names]
    columns = [[row["run"], *(_text(row.get(name)) for name in names)] for row in rows]
    space = max(console.width - _width(first) - BORDERS - 1, LONGEST_HEAD + BORDERS)
    for block in _side_by_side(columns, space):
        table = Table()
        table.add_column("", width=_width(first), overflow="fold")
        for column in block:
            table.add_column(column[0], justify="right", width=min(_width(column), space - BORDERS), overflow="fold")
        for cells in zip(first[1:], *(column[1:] for column in block), strict=True):
            table.add_row(*cells)
        console.print(table)


def _side_by_side(columns: list[list[str]], space: int) -> Iterator[list[list[str]]]:
    """As many columns at a time as the space holds, at least one."""
    block: list[list[str]] = []
    for column in columns:
        if block and sum(_width(one) + BORDERS for one in [*block, column]) > space:
            yield block
            block = []
        block.append(column)
    yield block


def _width(column: list[str]) -> int:
    """Characters that the cells need; a longer head is folded."""
    return max([min(len(column[0]), LONGEST_HEAD), *map(len, column[1:])])


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(folder: Path, runs: list[Path], options: dict[str, Any]) -> None:
    """Every measured number against each numeric option that differs; log Z against the steps as its papers do."""
    names = dict.fromkeys(name for run in runs for name in read_results(run))
    keys = ESTIMATE if names.keys() >= set(ESTIMATE) else tuple(names)
    for option, value in options.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and option.rpartition(".")[2] != "seed":
            save_figure(quality_over_runs(runs, option=option, keys=keys), folder / "figures" / f"{option}.png")
    if "algorithm.num_steps" in options and "test/log_z_mean" in keys:
        save_figure(log_z_against_steps(folder), folder / "figures" / "log_z_against_steps.png")
