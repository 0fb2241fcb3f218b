r"""Score matching: regression of a score on noised samples, :math:`X_t = \alpha X_0 + \sqrt\lambda \epsilon`.

Here :math:`\alpha^2 = 1 - \lambda`. The score of the noised target is the conditional mean of two labels,

.. math:: \nabla \log \pi_t(x) = E[s_0(X_0) / \alpha \mid X_t = x] = E[-\epsilon / \sqrt\lambda \mid X_t = x],

the target's own score :math:`s_0 = \nabla \log \pi` carried along (De Bortoli et al. 2024), and the noise (Vincent
2011). So is every mix with a share c of the second, and :math:`\nabla \log g_t(x) = \nabla \log \pi_t(x) + x`. The
mixings of `sbflow.loss.mixing` differ in c, that is in the variance of the label, and in the weight of the error.
"""

import abc
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.potential import Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.tensor import Generators, expand_to, flat_sum, randn_like

__all__ = ["Coefficients", "Mixing", "ScoreMatching", "score_label", "score_matching"]

GradientField = Callable[[Tensor, Tensor], Tensor]
"""(x ``[n, d]``, t ``[n]``) -> ∇ log ĝ_t(x) ``[n, d]``."""


@runtime_checkable
class ScoreMatching(Protocol):
    """A loss that fits ∇ log ĝ_t to labels made from samples of the target; every `Mixing` is one."""

    def __call__(
        self,
        potential: Potential,
        process: OrnsteinUhlenbeck,
        x0: Float[Tensor, "n d"],
        grad_log_g0: Float[Tensor, "n d"],
        t: Float[Tensor, " n"],
        *,
        generator: Generators = None,
    ) -> Float[Tensor, ""]:
        """Mean of ‖∇ log ĝ_t(X_t) − label‖².

        Args:
            potential: the potential to fit.
            process: noising process.
            x0: samples of the target, in whitened coordinates.
            grad_log_g0: ∇ log g_0 at ``x0``.
            t: noising times, one per sample.
            generator: source of the noise.
        """


class Coefficients(NamedTuple):
    """The regression a s ≈ b s_0 − c ε, with a, b and c finite from λ = 0 to 1 where the label b/a s_0 − c/a ε is not.

    Attributes:
        score: a, the root of the weight of the squared error of the score s.
        target: b, of the target's score.
        noise: c, of the noise.
    """

    score: Float[Tensor, "n #d"]
    target: Float[Tensor, "n #d"]
    noise: Float[Tensor, "n #d"]


class Mixing(nn.Module, abc.ABC):
    """How the two labels are mixed; itself a loss of potentials, see `ScoreMatching`."""

    @abc.abstractmethod
    def coefficients(
        self, alpha: Float[Tensor, "n 1"], sqrt_level: Float[Tensor, "n 1"], score0: Float[Tensor, "n d"]
    ) -> Coefficients:
        """The regression at the noise levels λ = ``sqrt_level``², for samples with scores ``score0``."""

    def update(self, score0: Float[Tensor, "m d"]) -> None:
        """Take note of the scores of all samples that batches are drawn from; most mixings have no use for them."""

    def forward(
        self,
        potential: Potential,
        process: OrnsteinUhlenbeck,
        x0: Float[Tensor, "n d"],
        grad_log_g0: Float[Tensor, "n d"],
        t: Float[Tensor, " n"],
        *,
        generator: Generators = None,
    ) -> Float[Tensor, ""]:
        """Loss of a potential, see `ScoreMatching`."""

        def gradient(z: Tensor, t: Tensor) -> Tensor:
            return potential.log_g_and_grad(z, t)[1]

        return score_matching(gradient, process, x0, grad_log_g0, t, mixing=self, generator=generator)


def score_matching(
    grad_log_g: GradientField,
    process: OrnsteinUhlenbeck,
    x0: Float[Tensor, "n d"],
    grad_log_g0: Float[Tensor, "n d"],
    t: Float[Tensor, " n"],
    *,
    mixing: Mixing,
    generator: Generators = None,
) -> Float[Tensor, ""]:
    """Mean weighted squared error of a score against its labels; the true score is the minimiser for every mixing.

    Losses of different mixings are not comparable, as they contain the variance of their labels.

    Args:
        grad_log_g: the model of ∇ log g_t, that is of the score plus x.
        process: noising process with σ = 1.
        x0: samples of the target, in whitened coordinates.
        grad_log_g0: ∇ log g_0 at ``x0``, the target's score plus x0.
        t: noising times, one per sample.
        mixing: labels and weight.
        generator: source of the noise.

    References:
        De Bortoli, Hutchinson, Wirnsberger, Doucet, "Target Score Matching", 2024.
    """
    alpha, sqrt_level = (expand_to(part, x0).to(x0.dtype) for part in process.transition(t.new_zeros(()), t))
    noise = randn_like(x0, generator)
    x_t = alpha * x0 + sqrt_level * noise
    score0 = grad_log_g0 - x0
    a, b, c = mixing.coefficients(alpha, sqrt_level, score0)
    return flat_sum((a * (grad_log_g(x_t, t) - x_t) - (b * score0 - c * noise)) ** 2).mean()


def score_label(
    noise: Float[Tensor, "n d"],
    score0: Float[Tensor, "n d"],
    alpha: Tensor | float,
    level: Tensor | float,
    mixing: Mixing,
) -> Float[Tensor, "n d"]:
    """Label whose conditional mean given X_t is ∇ log π_t; plus X_t, it is one of ∇ log g_t.

    Args:
        noise: ε.
        score0: ∇ log π at X_0.
        alpha: √(1 − λ), a number or one per sample ``[n]`` or ``[n, 1]``.
        level: λ in (0, 1), likewise.
        mixing: the mix.
    """
    values = (torch.as_tensor(value, dtype=score0.dtype, device=score0.device) for value in (alpha, level))
    alpha, level = (expand_to(value, score0).expand(len(score0), 1) for value in values)
    a, b, c = mixing.coefficients(alpha, level.sqrt(), score0)
    return (b * score0 - c * noise) / a
