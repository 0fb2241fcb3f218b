"""Figures of runs; each returns a matplotlib figure."""

from sbflow.figure.figure import save_figure
from sbflow.figure.loss import loss_curve

__all__ = ["loss_curve", "save_figure"]
