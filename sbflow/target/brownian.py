"""A Brownian motion of unknown scale, seen with noise of unknown scale and not at all in the middle.

Scales a (of the steps) and b (of the noise) ~ LogNormal(0, 2²), x₁ ~ N(0, a²), x_{t+1} | x_t ~ N(x_t, a²), and
y_t ~ N(x_t, b²) where t is observed. The point is (u, v, x₁, …, x_T) with a = softplus(u), b = softplus(v); γ is the
joint density of data and point, so that Z is the evidence p(y).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, pad, softplus

from sbflow.target.base import Target
from sbflow.target.dataset import read_csv

__all__ = ["Brownian", "BrownianMotion"]

_PRIOR_STD = 2.0


class BrownianMotion(Target):
    """Posterior of the two scales and the path, d = 2 + T.

    Args:
        observations: y_1, …, y_T; NaN where there is no observation.

    Raises:
        ValueError: there are no observations, or one is infinite.
    """

    observations: Tensor
    observed: Tensor

    def __init__(self, observations: Float[Tensor, " t"]) -> None:
        super().__init__()
        observed = ~observations.isnan()
        if observations.ndim != 1 or not observed.any() or observations.isinf().any():
            raise ValueError(
                f"observations must be numbers, NaN where missing, and not all missing, got {observations.tolist()}"
            )
        self.dim = 2 + len(observations)
        self.register_buffer("observations", observations.nan_to_num(), persistent=False)
        self.register_buffer("observed", observed.to(observations.dtype), persistent=False)
        self._num_observed = int(observed.sum())

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log p(y, point = x) in nats."""
        return self.log_prob_and_score(x)[0]

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log p(y, point = x) and its gradient."""
        path = x[:, 2:]
        steps = torch.diff(path, dim=1, prepend=torch.zeros_like(path[:, :1]))
        residuals = (self.observations.to(x.dtype) - path) * self.observed.to(x.dtype)
        log_a, score_u, precision = _scale_terms(x[:, 0], steps, path.shape[1])
        log_b, score_v, noise_precision = _scale_terms(x[:, 1], residuals, self._num_observed)
        score = precision[:, None] * (pad(steps[:, 1:], (0, 1)) - steps) + noise_precision[:, None] * residuals
        return log_a + log_b, torch.cat([score_u[:, None], score_v[:, None], score], dim=1)


class Brownian(BrownianMotion):
    """The series of 30 points whose middle ten are missing, d = 32.

    ``log_normalizer`` is exact to the digits given: the path is integrated out in closed form, the scales
    by quadrature.

    Raises:
        FileNotFoundError: the data are not under the data root, see `sbflow.target.dataset`.

    References:
        Sountsov, Radul and contributors, Inference Gym, 2020 (``BrownianMotionMissingMiddleObservations``).
    """

    log_normalizer = 1.187749

    def __init__(self) -> None:
        super().__init__(read_csv("brownian_missing_middle")[:, 1].to(torch.get_default_dtype()))


def _scale_terms(
    u: Float[Tensor, " n"], deviations: Float[Tensor, "n t"], count: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Log density of the scale softplus(u) and of ``count`` deviations of that scale, its derivative, the precision."""
    scale = softplus(u)
    log_scale = scale.log()
    precision = scale**-2
    squares = deviations.square().sum(1) * precision
    log_prior = -0.5 * (log_scale / _PRIOR_STD).square() - log_scale - math.log(_PRIOR_STD)
    log_likelihood = -0.5 * squares - count * log_scale
    log_prob = log_prior + logsigmoid(u) + log_likelihood - 0.5 * (count + 1) * math.log(2 * math.pi)
    by_scale = (squares - count - 1 - log_scale / _PRIOR_STD**2) / scale
    return log_prob, by_scale * torch.sigmoid(u) + torch.sigmoid(-u), precision
