"""What a particle run looked like: weights along its path, and where the samples are."""

from typing import Any

import torch
from matplotlib.figure import Figure

__all__ = ["EvidenceFigure"]


class EvidenceFigure:
    """Effective sample size along the path, and the first two coordinates of the weighted samples.

    Args:
        num_particles: particles of the run that is drawn.
        seed: its seed.
    """

    def __init__(self, num_particles: int = 2000, seed: int = 0) -> None:
        self.num_particles = num_particles
        self.seed = seed

    def __call__(self, module: Any, data: Any = None) -> Figure:
        """Draw with an algorithm that estimates."""
        evidence = module.estimate(num_particles=self.num_particles, seed=self.seed)
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(evidence.ess_path.cpu() / evidence.num_particles, marker="o", markersize=3)
        left.set(xlabel="step", ylabel="ESS / particles", ylim=(0, 1.05), title=str(evidence).split(",")[0])
        weights = evidence.log_weights.exp().cpu()
        chosen = torch.multinomial(weights, min(1000, len(weights)), replacement=True)
        x = evidence.samples.cpu()[chosen]
        if x.shape[1] > 1:
            right.scatter(x[:, 0], x[:, 1], s=3, alpha=0.5)
            right.set(xlabel="$x_1$", ylabel="$x_2$", title="samples")
        else:
            right.hist(x[:, 0].numpy(), bins=60, density=True)
            right.set(xlabel="$x_1$", title="samples")
        return figure
