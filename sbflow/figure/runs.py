"""Quality of several runs against an option in which they differ."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sbflow.figure.panels import label, main_keys, panels, variants

__all__ = ["quality_over_runs", "read_results"]

RESULTS = ("metrics.json", "evidence.json")


def read_results(folder: Path) -> dict[str, float]:
    """Numbers that a run left behind, of a training or an estimate; none where it has not been measured."""
    file = next((folder / name for name in RESULTS if (folder / name).is_file()), None)
    values = json.loads(file.read_text()) if file else {}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def quality_over_runs(folders: Sequence[Path], *, option: str, keys: Sequence[str]) -> Figure:
    """One panel for each number, over the values of an option; both directions and the floor share a panel.

    Runs with the same value of the option (seeds) are one point, their mean, with their standard deviation.

    Args:
        folders: run folders, each with ``config.yaml`` and ``metrics.json`` or ``evidence.json``.
        option: dotted name of a numeric option, for example ``process.epsilon``.
        keys: names of the numbers; those that no run has are left out.

    Raises:
        ValueError: no folder has the option as a number and one of the keys.
    """
    found = [(_option(folder, option), read_results(folder)) for folder in folders]
    runs = [(float(value), metrics) for value, metrics in found if isinstance(value, int | float)]
    names = [key for key in keys if any(key in metrics for _, metrics in runs)]
    if not names:
        raise ValueError(f"none of the {len(folders)} runs has a number for {option} and one of {', '.join(keys)}")
    shown = main_keys(names)
    figure, axes = panels(len(shown))
    for key, one in zip(shown, axes, strict=True):
        lines = variants(key, names)
        for name, style, legend in lines:
            _curve(one, runs, name, style, legend)
        if len(lines) > 1:
            one.legend(frameon=False, fontsize=8)
        one.set(xlabel=option, ylabel=label(key))
    _scale(axes, [value for value, _ in runs])
    return figure


def _curve(axes: Axes, runs: Sequence[tuple[float, dict[str, float]]], key: str, style: str, legend: str) -> None:
    groups: dict[float, list[float]] = defaultdict(list)
    for value, metrics in runs:
        if key in metrics:
            groups[value].append(metrics[key])
    values = sorted(groups)
    means = [mean(groups[value]) for value in values]
    spread = [stdev(groups[value]) if len(groups[value]) > 1 else 0.0 for value in values]
    axes.errorbar(values, means, spread, fmt=style, markersize=4, capsize=3, label=legend)


def _scale(axes: Sequence[Axes], values: Sequence[float]) -> None:
    """A logarithmic axis for values that span more than a factor of eight."""
    if min(values) > 0 and max(values) > 8 * min(values):
        for one in axes:
            one.set_xscale("log")


def _option(folder: Path, option: str) -> Any:
    part = yaml.safe_load((folder / "config.yaml").read_text())
    for name in option.split("."):
        part = part.get(name) if isinstance(part, dict) else None
    return part if not isinstance(part, bool) else None
