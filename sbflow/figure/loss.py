"""Training curves."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["loss_curve"]


def loss_curve(file: Path) -> Figure:
    """Plot every ``train/…`` column of a ``metrics.csv`` against the step, one panel each."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    names = [name for name in (rows[0] if rows else {}) if name.startswith("train/")]
    figure = Figure(figsize=(6, 2.2 * max(len(names), 1)), layout="constrained")
    for name, axes in zip(names, figure.subplots(max(len(names), 1), squeeze=False)[:, 0], strict=False):
        points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set(xlabel="step", ylabel=name.removeprefix("train/"))
    return figure
