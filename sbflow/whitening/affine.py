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

    @classmethod
    def from_samples(
        cls,
        x: Float[Tensor, "n d"],
        log_weights: Float[Tensor, " n"] | None = None,
        *,
        diagonal: bool = False,
        inflation: float = 1.0,
    ) -> "Affine":
        """Take the mean and the covariance of weighted samples, in float64.

        Args:
            x: samples.
            log_weights: their log-weights, normalised or not; None for equal weights.
            diagonal: keep the standard deviations alone, where samples are too few for correlations.
            inflation: factor on the standard deviations.

        Raises:
            ValueError: a sample of positive weight is not finite, no sample has weight, or those that have do not span
                the space.
        """
        weights = _normalised(x, log_weights)
        # a sample of weight zero may lie anywhere, at infinity too
        x = torch.where(weights[:, None] > 0, x.double(), 0)
        loc = weights @ x
        centred = weights.sqrt()[:, None] * (x - loc)
        # weights of n equal parts have 1 − 1/n here, the usual correction
        factor = inflation / (1 - weights.square().sum()).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
        return cls(loc, factor * (centred.norm(dim=0) if diagonal else _triangular_root(centred)))

    @property
    def dim(self) -> int:
        """Dimension d."""
        return len(self.loc)

    @property
    def diagonal(self) -> Float[Tensor, " d"]:
        """Diagonal of L."""
        return self.scale if self.scale.ndim == 1 else self.scale.diagonal()

    def precision_diagonal(self) -> Float[Tensor, " d"]:
        """Diagonal of (L Lᵀ)⁻¹: the inverse variance of each coordinate given all others."""
        if self.scale.ndim == 1:
            return self.scale**-2
        eye = torch.eye(self.dim).to(self.scale)
        return torch.linalg.solve_triangular(self.scale, eye, upper=False).square().sum(0)

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


def _normalised(x: Float[Tensor, "n d"], log_weights: Float[Tensor, " n"] | None) -> Float[Tensor, " n"]:
    """Weights that sum to 1, after a check that they and the samples can be averaged."""
    given = x.new_zeros(len(x)) if log_weights is None else log_weights
    weights = given.double().softmax(0)
    if not weights.isfinite().all():
        raise ValueError(f"log_weights must be below infinity and not all -inf, got a largest of {given.max():g}")
    num_bad = int((~x.isfinite().all(1) & (weights > 0)).sum())
    if num_bad:
        raise ValueError(f"x must be finite where it has weight, got {num_bad} of {len(x)} samples that are not")
    return weights


def _triangular_root(centred: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Lower-triangular L with L Lᵀ = centredᵀ centred, without squaring the condition number."""
    rank = int(torch.linalg.matrix_rank(centred))
    if rank < centred.shape[1]:
        raise ValueError(
            f"x must span its {centred.shape[1]} dimensions for a full covariance, got samples of rank {rank}: "
            "take more of them or diagonal=True"
        )
    upper = torch.linalg.qr(centred).R
    return (upper * upper.diagonal().sign()[:, None]).T.tril()
