"""Small panels side by side, one for each number."""

import math
from collections.abc import Collection

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["label", "main_keys", "panels", "variants"]

COLUMNS = 3

VARIANTS = (("", "o-", "forward"), ("_backward", "s--", "backward"), ("_floor", ":", "floor"), ("_exact", ":", "exact"))
"""Endings of the names that share a panel, with line style and legend."""


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels in rows of three, and these; at least one."""
    columns = min(max(count, 1), COLUMNS)
    rows = math.ceil(max(count, 1) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[max(count, 1) :]:
        spare.remove()
    return figure, axes[: max(count, 1)]


def label(key: str) -> str:
    """What is written beside an axis: ``test/cross_covariance_error`` becomes "cross covariance error"."""
    return key.removeprefix("test/").replace("_", " ")


def variants(key: str, names: Collection[str]) -> list[tuple[str, str, str]]:
    """Names of the numbers in the panel of a key, with line style and legend."""
    return [(f"{key}{ending}", style, legend) for ending, style, legend in VARIANTS if f"{key}{ending}" in names]


def main_keys(names: Collection[str]) -> list[str]:
    """Names that have a panel of their own: those that are not a variant of another one."""
    shared = {f"{key}{ending}{other}" for key in names for ending, _, _ in VARIANTS[1:] for other in ("", "_backward")}
    return [key for key in names if key not in shared]
