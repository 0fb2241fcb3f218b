"""The estimate of log Z against the number of steps, over the runs of a sweep."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["log_z_against_steps", "read_sweep"]


class Row(NamedTuple):
    """One run of a sweep.

    Attributes:
        num_steps: steps of the sampler.
        metrics: contents of ``metrics.json``.
        log_normalizer: log Z as far as the metrics tell, else None.
    """

    num_steps: int
    metrics: dict[str, Any]
    log_normalizer: float | None


def log_z_against_steps(folder: Path) -> Figure:
    """Draw log Ẑ, mean and two standard deviations over its replicates, trained beside untrained.

    Args:
        folder: of a sweep over the steps, ``sbflow train -m algorithm.num_steps=2,4,8 …``: every folder below it with a
            ``metrics.json`` of `sbflow.metric.LogNormalizer` is a run.

    Raises:
        ValueError: no run below the folder has an estimate of log Z.

    References:
        Phillips et al., "Particle Denoising Diffusion Sampler", 2024, the figures of log Z against K.
    """
    rows = read_sweep(folder)
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for suffix, label, shift in (("_untrained", "untrained", 0.97), ("", "trained", 1.03)):
        _draw(axes, rows, suffix, label, shift)
    known = [row.log_normalizer for row in rows if row.log_normalizer is not None]
    if known:
        axes.axhline(known[0], color="black", linestyle="--", linewidth=1, label="reference")
    steps = sorted({row.num_steps for row in rows})
    axes.set_xscale("log", base=2)
    axes.set(xlabel="steps K", ylabel="log Z", xticks=steps, xticklabels=[str(k) for k in steps])
    axes.minorticks_off()
    axes.legend()
    return figure


def read_sweep(folder: Path) -> list[Row]:
    """Runs below a folder that estimate log Z, by their number of steps.

    Raises:
        ValueError: there is none.
    """
    rows = [row for file in sorted(folder.rglob("metrics.json")) if (row := _read(file)) is not None]
    if not rows:
        raise ValueError(f"{folder} holds no run with an estimate of log Z; give the folder of a sweep over num_steps")
    return sorted(rows, key=lambda row: row.num_steps)


def _read(file: Path) -> Row | None:
    metrics = json.loads(file.read_text())
    if not {"test/log_z_mean", "test/num_steps"} <= metrics.keys():
        return None
    bias = metrics.get("test/log_z_bias")
    return Row(int(metrics["test/num_steps"]), metrics, None if bias is None else metrics["test/log_z_mean"] - bias)


def _draw(axes: Axes, rows: list[Row], suffix: str, label: str, shift: float) -> None:
    keys = (f"test/log_z_mean{suffix}", f"test/log_z_sd{suffix}")
    found = [row for row in rows if all(key in row.metrics for key in keys)]
    mean, deviation = ([row.metrics[key] for row in found] for key in keys)
    # side by side, for the error bars to be told apart
    steps = [row.num_steps * shift for row in found]
    axes.errorbar(steps, mean, yerr=[2 * sd for sd in deviation], marker="o", markersize=4, capsize=3, label=label)
