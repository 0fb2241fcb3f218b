r"""Losses that fit a potential on samples of the target, :math:`X_t = \alpha X_0 + \sqrt\lambda \epsilon`.

Here :math:`\alpha = \sqrt{1 - \lambda}`. The score of the noised target is the conditional mean of two labels,

.. math:: \nabla \log \pi_t(x) = E[s_0(X_0) / \alpha \mid X_t = x] = E[-\epsilon / \sqrt\lambda \mid X_t = x],

the target's own score :math:`s_0 = \nabla \log \pi` carried along, and the noise. So is every mix with a share c of
the second, and :math:`\nabla \log g_t(x) = \nabla \log \pi_t(x) + x`. The losses differ in c, that is in the variance
of the label; all of them have the true gradient of the potential as minimiser.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sbflow.potential import Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.tensor import Generators, expand_to, flat_sum, randn_like

__all__ = [
    "ScoreMatching",
    "denoising_score_matching",
    "fisher_score_matching",
    "novel_score_matching",
    "target_score_matching",
]


@runtime_checkable
class ScoreMatching(Protocol):
    """A loss that fits ∇ log ĝ_t to labels made from samples of the target."""

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


def novel_score_matching(
    potential: Potential,
    process: OrnsteinUhlenbeck,
    x0: Float[Tensor, "n d"],
    grad_log_g0: Float[Tensor, "n d"],
    t: Float[Tensor, " n"],
    *,
    generator: Generators = None,
) -> Float[Tensor, ""]:
    """Novel score matching, c = λ: the label is α ∇ log g_0(X_0), whose variance vanishes with the noise.

    Arguments as in `ScoreMatching`.

    References:
        Phillips et al. 2024, "Particle Denoising Diffusion Sampler".
    """
    noised = _noise(process, x0, t, generator)
    label = noised.alpha * grad_log_g0
    return flat_sum((potential.log_g_and_grad(noised.x_t, t)[1] - label) ** 2).mean()


def denoising_score_matching(
    potential: Potential,
    process: OrnsteinUhlenbeck,
    x0: Float[Tensor, "n d"],
    grad_log_g0: Float[Tensor, "n d"],
    t: Float[Tensor, " n"],
    *,
    generator: Generators = None,
) -> Float[Tensor, ""]:
    """Denoising score matching, c = 1, weighted by λ: needs no gradient of the target, but is all noise as λ → 0.

    Arguments as in `ScoreMatching`.

    References:
        Vincent 2011, "A Connection Between Score Matching and Denoising Autoencoders".
    """
    noised = _noise(process, x0, t, generator)
    score = potential.log_g_and_grad(noised.x_t, t)[1] - noised.x_t
    return flat_sum((noised.sqrt_level * score + noised.noise) ** 2).mean()


def target_score_matching(
    potential: Potential,
    process: OrnsteinUhlenbeck,
    x0: Float[Tensor, "n d"],
    grad_log_g0: Float[Tensor, "n d"],
    t: Float[Tensor, " n"],
    *,
    generator: Generators = None,
) -> Float[Tensor, ""]:
    """Target score matching, c = 0, weighted by α²: exact as λ → 0, but knows nothing of the noise as λ → 1.

    Arguments as in `ScoreMatching`.

    References:
        De Bortoli et al. 2024, "Target Score Matching".
    """
    noised = _noise(process, x0, t, generator)
    score = potential.log_g_and_grad(noised.x_t, t)[1] - noised.x_t
    return flat_sum((noised.alpha * score - (grad_log_g0 - x0)) ** 2).mean()


def fisher_score_matching(
    potential: Potential,
    process: OrnsteinUhlenbeck,
    x0: Float[Tensor, "n d"],
    grad_log_g0: Float[Tensor, "n d"],
    t: Float[Tensor, " n"],
    *,
    generator: Generators = None,
) -> Float[Tensor, ""]:
    """Score matching with the label of least variance, c = λ / (λ + α² / I) in each coordinate.

    The two labels are uncorrelated, of second moments I / α² and 1 / λ in a coordinate whose Fisher information is
    I = E[(∂ log π)²], and this c balances them. For a Gaussian with independent coordinates the label is the score
    itself. The information that weighs a sample is averaged over the others of the batch, which leaves its label
    unbiased. Arguments as in `ScoreMatching`.
    """
    noised = _noise(process, x0, t, generator)
    score0 = grad_log_g0 - x0
    squares = score0.square()
    information = (squares.sum(0) - squares) / max(len(x0) - 1, 1)
    level = noised.sqrt_level.square()
    mixed = noised.alpha * score0 - noised.sqrt_level * information * noised.noise
    label = mixed / (noised.alpha.square() + level * information) + noised.x_t
    return flat_sum((potential.log_g_and_grad(noised.x_t, t)[1] - label) ** 2).mean()


class _Noised(NamedTuple):
    x_t: Float[Tensor, "n d"]
    noise: Float[Tensor, "n d"]
    alpha: Float[Tensor, "n 1"]
    sqrt_level: Float[Tensor, "n 1"]


def _noise(
    process: OrnsteinUhlenbeck, x0: Float[Tensor, "n d"], t: Float[Tensor, " n"], generator: Generators
) -> _Noised:
    alpha, sqrt_level = (expand_to(part, x0).to(x0.dtype) for part in process.transition(t.new_zeros(()), t))
    noise = randn_like(x0, generator)
    return _Noised(alpha * x0 + sqrt_level * noise, noise, alpha, sqrt_level)
