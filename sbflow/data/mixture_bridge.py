"""The mixture benchmark: unpaired data whose Schrödinger bridge is known, in any dimension and for any epsilon.

π₀ = N(0, I); the end potential is a mixture of Gaussians v(y) = Σ_k N(y; b_k, ε A_k⁻¹), up to weights, and π₁ is what
the plan makes of π₀ (`sbflow.process.MixtureBridge`). The construction is that of Gushchin et al. 2023; their constants
come as files, so those here are drawn anew from a seed: five centres b_k uniform on a sphere of radius 5, whatever the
dimension, and matrices A_k with eigenvalues spaced evenly in their logarithm from 1/2 to 2, in random bases. Then X1
given X0 = x and the component has mean (I + A_k)⁻¹ (x + A_k b_k), for every ε alike, and covariance ε (I + A_k)⁻¹:
about half way to the centre, with noise of variance about ε / 2. One spectrum for all components keeps any of them from
taking all of the mass in high dimension.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from sbflow.data.unpaired import Split, UnpairedData
from sbflow.process import MixtureBridge
from sbflow.tensor import seeded_generator

__all__ = ["MixtureBridgeData"]

RADIUS = 5.0
LARGEST_EIGENVALUE = 2.0
CHUNK = 8192


class MixtureBridgeData(UnpairedData):
    """Unpaired samples of the mixture benchmark; its published sizes are dim 2, 16, 64, 128 and epsilon 0.1, 1, 10.

    Attributes:
        bridge: the plan and the drift in closed form.

    Args:
        dim: dimension.
        epsilon: variance of the reference per unit of time; the process must have the same one.
        num_components: components of the potential.
        problem_seed: seed of the potential, apart from ``seed`` so that runs of several seeds share a problem.
        num_samples: samples of each end in the training split.
        num_test: samples of each end in the test split.
        **kwargs: see `UnpairedData`.

    Raises:
        ValueError: a number out of range.

    References:
        Gushchin et al., Building the Bridge of Schrödinger: A Continuous Entropic Optimal Transport Benchmark, 2023.
    """

    def __init__(
        self,
        *,
        dim: int = 2,
        epsilon: float = 1.0,
        num_components: int = 5,
        problem_seed: int = 0,
        num_samples: int = 100_000,
        num_test: int = 20_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        sizes = {"dim": dim, "num_components": num_components, "num_samples": num_samples, "num_test": num_test}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.dim = dim
        self.epsilon = epsilon
        self.counts = {"train": num_samples, "test": num_test}
        self.bridge = _draw_bridge(dim, epsilon, num_components, problem_seed)

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Draw a split; its x0 and x1 are independent, for x1 comes from an x0 of its own."""
        generator = seeded_generator(self.seed, split == "test")
        count = self.counts[split]
        x0, start = torch.randn(2, count, self.dim, generator=generator)
        # in pieces: five means for each sample at once would take gigabytes at the largest sizes
        x1 = torch.cat([self.bridge.sample(piece, generator) for piece in start.split(CHUNK)])
        return Split(x0, x1)


def _draw_bridge(dim: int, epsilon: float, num_components: int, seed: int) -> MixtureBridge:
    generator = seeded_generator(seed)
    directions = torch.randn(num_components, dim, generator=generator, dtype=torch.float64)
    centres = RADIUS * directions / directions.norm(dim=1, keepdim=True)
    bases = torch.linalg.qr(torch.randn(num_components, dim, dim, generator=generator, dtype=torch.float64)).Q
    variances = epsilon * _spectrum(dim)
    # equal weights: with one spectrum and one radius no component is favoured
    return MixtureBridge(torch.zeros(num_components), centres, (bases * variances) @ bases.mT, epsilon)


def _spectrum(dim: int) -> Tensor:
    """Eigenvalues of A⁻¹, which are those of A as they are placed symmetrically about 1."""
    bound = math.log(LARGEST_EIGENVALUE)
    return torch.linspace(-bound, bound, dim, dtype=torch.float64).exp() if dim > 1 else torch.ones(1).double()
