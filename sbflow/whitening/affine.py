"""The change of variables x = m + L z, under which z ~ N(0, I) is x ~ N(m, L Lᵀ)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Affine"]


class Affine(nn.Module):
    """Invertible map from whitened to original coordinates, applied row by row; results have the dtype of the input.

    Attributes:
        loc: m, shape ``[d]``.
        scale: L, the diagonal ``[d]`` or a lower-triangular matrix ``[d, d]``.

    Args:
        loc: mean of the reference law ``[d]``.
        scale: standard deviations ``[d]``, or the lower-triangular factor ``[d, d]`` of the covariance; positive on the
            diagonal.

    Raises:
        ValueError: the shapes disagree, or ``scale`` is not lower-triangular with a positive diagonal.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Float[Tensor, " d"], scale: Float[Tensor, " d"] | Float[Tensor, "d d"]) -> None:
        super().__init__()
        if loc.ndim != 1 or scale.shape not in (loc.shape, (*loc.shape, *loc.shape)):
            raise ValueError(
                f"loc [d] and scale [d] or [d, d] must agree, got {list(loc.shape)} and {list(scale.shape)}"
            )
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)
        if not (self.diagonal > 0).all() or not scale.isfinite().all():
            raise ValueError(f"scale must be finite and positive on its diagonal, got {self.diagonal.tolist()}")
        if scale.ndim == 2 and scale.triu(1).any():
            raise ValueError("scale must be lower-triangular, got non-zero values above the diagonal")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return len(self.loc)

    @property
    def diagonal(self) -> Float[Tensor, " d"]:
        """Diagonal of L."""
        return self.scale if self.scale.ndim == 1 else self.scale.diagonal()

    @property
    def log_det(self) -> Float[Tensor, ""]:
        """Log |det L|, what a log density gains when it is expressed in z."""
        return self.diagonal.log().sum()

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Map whitened to original coordinates, x = m + L z."""
        scale = self.scale.to(z.dtype)
        return self.loc.to(z.dtype) + (z * scale if scale.ndim == 1 else z @ scale.T)

    def inverse(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Map original to whitened coordinates, z = L⁻¹ (x − m)."""
        scale, centred = self.scale.to(x.dtype), x - self.loc.to(x.dtype)
        if scale.ndim == 1:
            return centred / scale
        return torch.linalg.solve_triangular(scale, centred.T, upper=False).T

    def pull_back(self, gradient: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Turn gradients with respect to x into gradients with respect to z, Lᵀ ∇ₓ."""
        scale = self.scale.to(gradient.dtype)
        return gradient * scale if scale.ndim == 1 else gradient @ scale
