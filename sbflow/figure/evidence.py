"""What a particle run looked like: weights along its path, and where the samples are."""

from typing import Any

from matplotlib.figure import Figure

__all__ = ["EvidenceFigure"]


class EvidenceFigure:
    """Effective sample size and log Z along the path, and the marginals of the samples.

    Args:
        num_particles: particles of the run that is drawn.
        seed: its seed.
    """

    def __init__(self, num_particles: int = 2000, seed: int = 0) -> None:
        self.num_particles = num_particles
        self.seed = seed

    def __call__(self, module: Any, data: Any = None) -> Figure:
        """Draw with an algorithm that estimates."""
        return module.estimate(num_particles=self.num_particles, seed=self.seed).plot()
