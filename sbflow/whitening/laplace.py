"""The Laplace approximation as reference law: N(mode, (−∇² log γ(mode))⁻¹)."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.target.base import Target
from sbflow.whitening.affine import Affine
from sbflow.whitening.base import ADVICE, Whitening, check_inflation, device_of, double_copy

__all__ = ["Laplace"]

NEAR = 0.1
_NEWTON_STEPS = 20
_HALVINGS = 20


class Laplace(Whitening):
    """Gaussian at the mode with the inverse curvature as covariance; for targets with one dominating mode.

    The mode is sought from x = 0, in float64, by L-BFGS and then by Newton's method.

    Args:
        num_steps: L-BFGS steps at most.
        inflation: factor on the standard deviations; above 1 covers tails heavier than the Gaussian's.

    Raises:
        ValueError: ``num_steps`` is below 1, or ``inflation`` is not positive and finite.
    """

    def __init__(self, num_steps: int = 500, inflation: float = 1.0) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        check_inflation(inflation)
        self.num_steps = num_steps
        self.inflation = inflation

    def fit(self, target: Target) -> Affine:
        """Find the mode and the curvature there.

        Raises:
            ValueError: log γ cannot be evaluated in float64, is not finite at x = 0, or has no proper maximum that
                the search reaches.
        """
        density = double_copy(target)
        start = torch.zeros(target.dim, dtype=torch.float64, device=device_of(target))
        _check_start(density, start)
        mode = _newton(density, _lbfgs(density, start, self.num_steps))
        scale = _inverse_factor(_curvature(density, mode))
        _check_width(scale)
        # in whitened units the mode is at distance |Lᵀ∇ log γ|, to first order; a density that computes with float32
        # inside is not climbed much nearer, and loses nothing by it
        if (scale.T @ density.score(mode[None])[0]).norm() > NEAR:
            raise ValueError(f"laplace whitening found no maximum in num_steps={self.num_steps}: raise it or {ADVICE}")
        return Affine(mode, self.inflation * scale)

    def empty(self, dim: int) -> Affine:
        """Return the identity, with a full matrix."""
        return Affine(torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64))


def _check_width(scale: Float[Tensor, "d d"]) -> None:
    """Refuse a spike, such as hierarchical models have where their scale goes to zero: its bulk lies elsewhere."""
    width = scale.diagonal().min().item()
    # below this, the particles' squared distances underflow in float32
    if width < torch.finfo(torch.float32).tiny ** 0.5:
        raise ValueError(f"laplace whitening found a spike of width {width:.3g}, not the bulk of the density: {ADVICE}")


def _check_start(target: Target, x: Float[Tensor, " d"]) -> None:
    try:
        log_prob, score = target.log_prob_and_score(x[None])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"laplace whitening needs log_prob to take float64 points, {ADVICE}: {reason}") from error
    if not (log_prob.isfinite().all() and score.isfinite().all()):
        raise ValueError(
            f"laplace whitening starts at x = 0, where log_prob is {log_prob.item():g} and its gradient has norm "
            f"{score.norm().item():g}; both must be finite: shift the density or {ADVICE}"
        )


def _lbfgs(target: Target, start: Float[Tensor, " d"], num_steps: int) -> Float[Tensor, " d"]:
    """Climb from ``start``; return it unchanged where the climb leaves the support."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=num_steps, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def negative_log_prob() -> float:
        log_prob, score = target.log_prob_and_score(x.detach()[None])
        x.grad = -score[0].detach()
        return -log_prob.item()

    optimizer.step(negative_log_prob)  # type: ignore[no-untyped-call]
    end = x.detach()
    return end if _log_prob(target, end) >= _log_prob(target, start) else start


def _newton(target: Target, x: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """Polish a mode to rounding error; every step is kept short enough to climb."""
    for _ in range(_NEWTON_STEPS):
        gradient = target.score(x[None])[0].detach()
        direction = _newton_direction(_curvature(target, x), gradient)
        # the gain that the quadratic model promises, twice: a squared distance in whitened units
        gain = (gradient @ direction).item()
        if not gain > 1e-22:
            break
        x = _climb(target, x, direction, gain)
    return x


def _newton_direction(curvature: Float[Tensor, "d d"], gradient: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    factor, info = torch.linalg.cholesky_ex(curvature)
    if not info:
        return torch.cholesky_solve(gradient[:, None], factor)[:, 0]
    values, vectors = torch.linalg.eigh(curvature)
    # |λ|: where the curvature is not that of a maximum, saddles are left and not approached
    floor = 1e-8 * values.abs().max().clamp_min(1e-8)
    return vectors @ ((vectors.T @ gradient) / values.abs().clamp_min(floor))


def _climb(target: Target, x: Float[Tensor, " d"], direction: Float[Tensor, " d"], gain: float) -> Float[Tensor, " d"]:
    """Longest step 1, ½, ¼, … with a sufficient increase; none where there is no such step."""
    before = _log_prob(target, x)
    # near the mode the increase is below the rounding error of log γ, and must not be asked for
    rounding = 1e-13 * (1 + abs(before))
    for step in (0.5**k for k in range(_HALVINGS)):
        candidate = x + step * direction
        if _log_prob(target, candidate) >= before + 1e-4 * step * gain - rounding:
            return candidate
    return x


def _log_prob(target: Target, x: Float[Tensor, " d"]) -> float:
    return target.log_prob(x[None]).item()


def _curvature(target: Target, x: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    """−∇² log γ at one point, from d copies of it: as many gradients as there are rows, all of them counted."""
    rows = x.detach().repeat(len(x), 1).requires_grad_()
    with torch.enable_grad():
        try:
            (jacobian,) = torch.autograd.grad(-target.score(rows).diagonal().sum(), rows)
        except RuntimeError:
            jacobian = _differences(target, x)
    if not jacobian.isfinite().all():
        raise ValueError(f"laplace whitening met a second derivative of log_prob that is not finite: {ADVICE}")
    return 0.5 * (jacobian + jacobian.T)


def _differences(target: Target, x: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    """The same by central differences, for a score that another library computes and that has no derivative."""
    # the cube root of the machine precision balances truncation and rounding
    steps = torch.finfo(x.dtype).eps ** (1 / 3) * x.abs().clamp_min(1)
    ahead, behind = (target.score(x + sign * steps.diag()).detach() for sign in (1, -1))
    return (behind - ahead) / (2 * steps[:, None])


def _inverse_factor(curvature: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Lower-triangular L with L Lᵀ = curvature⁻¹."""
    # a Cholesky factor from the last row up gives curvature = U Uᵀ, so L = U⁻ᵀ without forming the inverse
    factor, info = torch.linalg.cholesky_ex(curvature.flip(0, 1))
    if info:
        smallest = torch.linalg.eigvalsh(curvature)[0].item()
        raise ValueError(
            f"laplace whitening needs a proper maximum, but where it stopped the smallest eigenvalue of -Hessian of "
            f"log_prob is {smallest:.3g}, not positive: {ADVICE}"
        )
    return torch.linalg.solve_triangular(factor.flip(0, 1).T, torch.eye(len(factor)).to(factor), upper=False)
