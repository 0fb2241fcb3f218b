"""One Gaussian with any covariance: the target whose every noised law is known."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.mixture import GaussianMixture

__all__ = ["GaussianTarget"]


class GaussianTarget(GaussianMixture):
    """Normalised N(mean, covariance) on R^d, a mixture of one component.

    Args:
        mean: shape ``[d]``; the default is the paper's N(2.75, 0.25²) on the line.
        covariance: symmetric positive definite matrix ``[d, d]``.

    Raises:
        ValueError: the shapes disagree or the covariance is not symmetric positive definite.

    References:
        Phillips et al., Particle Denoising Diffusion Sampler, ICML 2024.
    """

    def __init__(
        self,
        mean: Sequence[float] | Float[Tensor, " d"] = (2.75,),
        covariance: Sequence[Sequence[float]] | Float[Tensor, "d d"] = ((0.0625,),),
    ) -> None:
        dtype = mean.dtype if isinstance(mean, Tensor) and mean.is_floating_point() else torch.get_default_dtype()
        m, s = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, covariance))
        if m.ndim != 1 or s.shape != (*m.shape, *m.shape):
            raise ValueError(f"mean [d] and covariance [d, d] must agree, got {list(m.shape)} and {list(s.shape)}")
        super().__init__(m[None].to(dtype), s[None], torch.ones(1, dtype=torch.float64))

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """Mean of the law."""
        return self.means[0]

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Covariance of the law."""
        return self.covariances[0]
