"""Figures of runs; each returns a matplotlib figure."""

from sbflow.figure.figure import save_figure
from sbflow.figure.loss import loss_curve
from sbflow.figure.runs import quality_over_runs

__all__ = ["loss_curve", "quality_over_runs", "save_figure"]
