"""What can be told before a run: whether a density has the right shapes, is finite somewhere and has a gradient."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.tensor import randn_like, seeded_generator

__all__ = ["check_target"]


def check_target(target: Target, x: Float[Tensor, "n d"] | None = None, *, like: Tensor | None = None) -> None:
    """Refuse a density on which no sampler could work, in one line that says what is wrong.

    Single points of density zero or NaN are left to the sampler, which gives them no weight.

    Args:
        target: density to check; each point of ``x`` is evaluated once, and one of them again.
        x: points where a run starts, draws from the reference law say; by default the origin and 63 standard normal
            points.
        like: tensor whose dtype and device the default points have.

    Raises:
        ValueError: values or gradients of the wrong shape or dtype, no finite value or gradient at any point, a density
            that is infinite, that does not depend on its argument by differentiable operations, or whose value depends
            on the other points of the batch.
    """
    if x is None:
        x = _default_points(target.dim, torch.empty(0) if like is None else like)
    try:
        log_prob, score = target.log_prob_and_score(x)
    except RuntimeError as error:
        raise ValueError(f"log_prob cannot be evaluated with its gradient: {str(error).splitlines()[0]}") from error
    _check_form("log_prob", log_prob, x.shape[:1], x)
    _check_form("the gradient of log_prob", score, x.shape, x)
    finite = _check_values(log_prob)
    _check_gradient(score[finite], log_prob[finite])
    _check_independence(target, x, log_prob, finite)


def _default_points(dim: int, like: Tensor) -> Float[Tensor, "n d"]:
    points = randn_like(like.new_empty(64, dim), seeded_generator(0))
    return torch.cat([torch.zeros_like(points[:1]), points[1:]])


def _check_form(what: str, value: Tensor, shape: torch.Size, x: Tensor) -> None:
    if value.shape != shape or value.dtype != x.dtype:
        expected, got = (f"{list(s)} in {d}" for s, d in ((shape, x.dtype), (value.shape, value.dtype)))
        raise ValueError(f"{what} must have shape {expected} for points of shape {list(x.shape)}, got {got}")


def _check_values(log_prob: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Where the density is positive and finite, which must be somewhere."""
    n, finite = len(log_prob), log_prob.isfinite()
    if log_prob.isposinf().any():
        raise ValueError(f"log_prob is +inf at {int(log_prob.isposinf().sum())} of {n} points where the run starts")
    if not finite.any():
        nan = int(log_prob.isnan().sum())
        raise ValueError(
            f"log_prob is nowhere finite at the {n} points where the run starts: NaN at {nan}, -inf at {n - nan}; "
            "bounded parameters need constraints, and a density far from the origin a whitening there"
        )
    return finite


def _check_gradient(score: Float[Tensor, "n d"], log_prob: Float[Tensor, " n"]) -> None:
    """Gradients where the density is finite."""
    broken = ~score.isfinite()
    if broken.any(1).all():
        raise ValueError(
            f"the gradient of log_prob is not finite at any of the {len(score)} points where log_prob is, first in "
            f"coordinate {int(broken.any(0).nonzero()[0])}: look for a norm or a root at zero, or a torch.where whose "
            "other branch overflows"
        )
    # a density that is flat on its support has no gradient either
    if not score.any() and (log_prob != log_prob[0]).any():
        raise ValueError(
            "the gradient of log_prob is zero at every point although its value changes: write log_prob with torch "
            "operations on its argument, without detach, item or numpy"
        )


def _check_independence(
    target: Target, x: Float[Tensor, "n d"], log_prob: Float[Tensor, " n"], finite: Bool[Tensor, " n"]
) -> None:
    """Each value must be that of its own point, alone or in company."""
    alone = target.log_prob(x[finite][:1])
    together = log_prob[finite][:1]
    tolerance = torch.finfo(x.dtype).eps ** 0.5 * (1 + together.abs())
    if ((alone - together).abs() > tolerance).any():
        raise ValueError(
            f"log_prob is {together.item():g} for a point in a batch of {len(x)} and {alone.item():g} for the point "
            "alone: it must be a function of each point by itself, without randomness"
        )
