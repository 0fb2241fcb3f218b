"""Making and saving figures without a display and without global state."""

from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["save_figure"]


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, making its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150, bbox_inches="tight")
