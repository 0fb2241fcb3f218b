"""Losses that fit a potential on samples of the target."""

from jaxtyping import Float
from torch import Tensor

from sbflow.potential import Potential
from sbflow.process import OrnsteinUhlenbeck
from sbflow.tensor import Generators, expand_to, flat_sum

__all__ = ["novel_score_matching"]


def novel_score_matching(
    potential: Potential,
    process: OrnsteinUhlenbeck,
    x0: Float[Tensor, "n d"],
    grad_log_g0: Float[Tensor, "n d"],
    t: Float[Tensor, " n"],
    *,
    generator: Generators = None,
) -> Float[Tensor, ""]:
    """Novel score matching: mean of ‖∇ log ĝ_t(X_t) − √(1 − λ_t) ∇ log g_0(X_0)‖².

    Its minimiser is the true ∇ log g_t, since ∇ log g_t(z) = √(1 − λ_t) E[∇ log g_0(X_0) | X_t = z]. Unlike in
    denoising score matching, the variance of the label vanishes with the noise.

    Args:
        potential: the potential to fit.
        process: noising process.
        x0: samples of the target, in whitened coordinates.
        grad_log_g0: ∇ log g_0 at ``x0``.
        t: noising times, one per sample.
        generator: source of the noise.

    References:
        Phillips et al. 2024, "Particle Denoising Diffusion Sampler".
    """
    x_t = process.kernel(x0, t.new_zeros(()), t).sample(generator)
    label = expand_to(process.schedule.alpha_bar(t).sqrt(), x0) * grad_log_g0
    return flat_sum((potential.log_g_and_grad(x_t, t)[1] - label) ** 2).mean()
