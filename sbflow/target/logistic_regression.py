"""Posterior of Bayesian logistic regression, and its two standard data sets.

Weights w ~ N(0, I), labels y_i ~ Bernoulli(sigmoid(x_i · w)); γ(w) is the joint density of labels and weights, so
that Z is the evidence p(y).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from sbflow.target.base import Target
from sbflow.target.dataset import read_csv

__all__ = ["Ionosphere", "LogisticRegression", "Sonar", "design_matrix"]

CACHED = 2**17
"""Logits evaluated at once on a processor."""


class LogisticRegression(Target):
    """Posterior of the weights given labels, under a standard normal prior.

    Args:
        features: design matrix, used as it is; `design_matrix` standardises raw features and adds an intercept.
        labels: 0 or 1 for each row of ``features``.

    Raises:
        ValueError: the shapes disagree, a feature is not finite, or a label is neither 0 nor 1.
    """

    signed_features: Tensor

    def __init__(self, features: Float[Tensor, "m d"], labels: Float[Tensor, " m"]) -> None:
        super().__init__()
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            shapes = f"{list(features.shape)} and {list(labels.shape)}"
            raise ValueError(f"features [m, d] and labels [m] must agree, got {shapes}")
        if not features.isfinite().all():
            raise ValueError("features must be finite, got NaN or infinite values")
        if not ((labels == 0) | (labels == 1)).all():
            raise ValueError(f"labels must be 0 or 1, got values from {labels.min():g} to {labels.max():g}")
        self.dim = features.shape[1]
        # both labels have the likelihood sigmoid(± x·w): folding the sign into the rows leaves one term per row
        self.register_buffer("signed_features", (2 * labels[:, None] - 1) * features, persistent=False)

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log p(y, w = x) in nats."""
        return self._log_joint(x, x @ self.signed_features.to(x.dtype).T)

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log p(y, w = x) and its gradient, for two matrix products."""
        signed_features = self.signed_features.to(x.dtype)
        # logits that leave the cache of a processor cost three times as much
        size = CACHED // max(len(signed_features), 1) if x.device.type == "cpu" else len(x)
        pieces = [self._value_and_score(piece, signed_features) for piece in torch.split(x, max(size, 1))]
        log_prob, score = zip(*pieces, strict=True)
        return torch.cat(log_prob), torch.cat(score)

    def _value_and_score(
        self, x: Float[Tensor, "n d"], signed_features: Float[Tensor, "m d"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        logits = x @ signed_features.T
        return self._log_joint(x, logits), torch.sigmoid(-logits) @ signed_features - x

    def _log_joint(self, x: Float[Tensor, "n d"], logits: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
        """Log likelihood, from the log odds of the observed labels, plus log prior."""
        log_prior = -0.5 * x.square().sum(1) - 0.5 * self.dim * math.log(2 * math.pi)
        return logsigmoid(logits).sum(1) + log_prior


class Sonar(LogisticRegression):
    """Mines against rocks from 60 sonar bands, d = 61 with the intercept.

    ``log_normalizer`` is a reference value, ± 0.001: adaptive importance sampling with a Student-t proposal, 4 million
    draws in float64.

    Raises:
        FileNotFoundError: the data are not under the data root, see `sbflow.target.dataset`.
    """

    log_normalizer = -108.384
    log_normalizer_stderr = 0.001

    def __init__(self) -> None:
        super().__init__(*_regression_data("sonar"))


class Ionosphere(LogisticRegression):
    """Good against bad radar returns from 34 features, d = 35 with the intercept.

    ``log_normalizer`` is a reference value, ± 0.0006: adaptive importance sampling with a Student-t proposal, 4 million
    draws in float64.

    Raises:
        FileNotFoundError: the data are not under the data root, see `sbflow.target.dataset`.
    """

    log_normalizer = -111.609
    log_normalizer_stderr = 0.0006

    def __init__(self) -> None:
        super().__init__(*_regression_data("ionosphere"))


def design_matrix(raw: Float[Tensor, "m p"]) -> Float[Tensor, "m d"]:
    """Standardise features by their population standard deviation and put an intercept in front, d = p + 1.

    A constant feature becomes zero.

    >>> design_matrix(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    tensor([[ 1., -1.,  0.],
            [ 1.,  1.,  0.]])
    """
    std = raw.std(dim=0, correction=0)
    standardised = (raw - raw.mean(dim=0)) / torch.where(std > 0, std, torch.ones_like(std))
    return torch.cat([torch.ones_like(raw[:, :1]), standardised], dim=1)


def _regression_data(name: str) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """Design matrix and labels of a table whose first column is the label, in the default dtype."""
    table = read_csv(name)
    dtype = torch.get_default_dtype()
    return design_matrix(table[:, 1:]).to(dtype), table[:, 0].to(dtype)
