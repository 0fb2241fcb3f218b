"""Many independent double wells in the plane, of unequal depth: 2^(d/2) modes."""

import torch

from sbflow.target.double_well import ProductOfWells

__all__ = ["ManyWell"]


class ManyWell(ProductOfWells):
    """d/2 copies of log γ(x₁, x₂) = −x₁⁴ + 6 x₁² + ½ x₁ − ½ x₂², side by side; log Z = 164.696 for d = 32.

    Args:
        dim: dimension d, even.

    Raises:
        ValueError: ``dim`` is not even or below 2.

    References:
        Midgley et al., Flow Annealed Importance Sampling Bootstrap, ICLR 2023.
    """

    def __init__(self, dim: int = 32) -> None:
        if dim < 2 or dim % 2:
            raise ValueError(f"dim must be even and at least 2, got {dim}")
        # −x⁴ + 6 x² = −(x² − 3)² + 9
        super().__init__(torch.arange(dim) % 2 == 0, weight=1.0, separation=3.0, tilt=0.5, offset=9.0)
