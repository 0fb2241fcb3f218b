"""The learned coupling of vectors, coordinate by coordinate."""

from typing import Any

from matplotlib.figure import Figure

__all__ = ["CouplingFigure"]


class CouplingFigure:
    """Scatter of the first coordinate of the input and of its translation, in both directions.

    Args:
        num_samples: points.
        seed: seed of the noise.
    """

    def __init__(self, num_samples: int = 2000, seed: int = 0) -> None:
        self.num_samples = num_samples
        self.seed = seed

    def check(self, module: object, data: Any) -> None:
        """Refuse data that are no vectors.

        Raises:
            ValueError: names the shape.
        """
        if len(getattr(data, "event_shape", (1,))) != 1:
            raise ValueError(f"figure CouplingFigure needs vectors, got samples of shape {list(data.event_shape)}")

    def __call__(self, module: Any, data: Any) -> Figure:
        """Draw with an algorithm that translates and data that has a test split."""
        self.check(module, data)
        split = data.split("test")
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        x0, x1 = split.x0[: self.num_samples], split.x1[: self.num_samples]
        left.scatter(x0[:, 0], module.translate(x0, "forward", seed=self.seed)[:, 0], s=2)
        right.scatter(module.translate(x1, "backward", seed=self.seed)[:, 0], x1[:, 0], s=2)
        left.set(xlabel="$x_0$, data", ylabel="$x_1$, translated", title="forward")
        right.set(xlabel="$x_0$, translated", ylabel="$x_1$, data", title="backward")
        return figure
