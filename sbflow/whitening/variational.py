r"""Gaussian variational inference: the reference law that is closest to the target by reverse Kullback–Leibler.

Among the laws N(m, L Lᵀ) of a family, maximise the evidence lower bound

.. math:: \mathrm{ELBO}(m, L) = E_{\epsilon \sim N(0, I)}[\log\gamma(m + L \epsilon)] + \log|\det L| + \text{const}.

The expectation is taken over one fixed set of draws whose mean and covariance are exactly 0 and I (a sample-average
approximation), so that the fit is deterministic, has no step size, and is exact for a Gaussian target.
"""

import abc
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.target.base import Target
from sbflow.whitening.affine import Affine
from sbflow.whitening.base import ADVICE, Whitening, check_inflation, device_of, double_copy
from sbflow.whitening.laplace import Laplace

__all__ = ["Family", "Variational", "balanced_draws"]

_MIN_DRAWS = 256
_DRAWS_PER_DIMENSION = 4
# largest error of the fitted mean, and relative error of the fitted scale, both in standard deviations of the fit
_TOLERANCE = 0.1


class Family(nn.Module):
    """Gaussians z = μ + T ε in coordinates where the start of the fit is N(0, I); parameters μ and those of T.

    Args:
        dim: dimension d.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(dim, dtype=torch.float64))

    @property
    def num_noise(self) -> int:
        """Standard normal numbers behind each draw."""
        return len(self.loc)

    def forward(self, noise: Float[Tensor, "s e"]) -> Float[Tensor, "s d"]:
        """Draws from noise."""
        raise NotImplementedError

    def log_det(self) -> Float[Tensor, ""]:
        """Log |det T|, for the entropy."""
        raise NotImplementedError

    def scale(self) -> Float[Tensor, " d"] | Float[Tensor, "d d"]:
        """Diagonal of T, or lower-triangular T."""
        raise NotImplementedError


class Variational(Whitening):
    """Gaussian fitted by reverse Kullback–Leibler divergence; a subclass chooses the family.

    The fit starts from the Laplace approximation where there is one with a higher lower bound than N(0, I). It settles
    on one mode and is narrower than a target with heavy tails or correlations that the family lacks: widen it by
    ``inflation`` there.

    Args:
        num_samples: draws of the fixed set; the default is four per dimension and at least 256.
        num_steps: L-BFGS steps at most.
        inflation: factor on the fitted standard deviations.
        seed: seed of the draws.

    Raises:
        ValueError: ``num_samples`` is below 2, ``num_steps`` below 1, or ``inflation`` not positive and finite.
    """

    def __init__(
        self, *, num_samples: int | None = None, num_steps: int = 200, inflation: float = 1.0, seed: int = 0
    ) -> None:
        if num_samples is not None and num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {num_samples}")
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        check_inflation(inflation)
        self.num_samples = num_samples
        self.num_steps = num_steps
        self.inflation = inflation
        self.seed = seed

    @abc.abstractmethod
    def family(self, dim: int) -> Family:
        """Gaussians to choose from, at the start of the fit."""

    def simplify(self, start: Affine) -> Affine:
        """Start of the fit that this family can express; by default the one given."""
        return start

    def fit(self, target: Target) -> Affine:
        """Maximise the lower bound.

        Raises:
            ValueError: log γ cannot be evaluated in float64, is not finite at the draws of the start, or has no
                Gaussian fit that the search reaches.
        """
        density, device = double_copy(target), device_of(target)
        family = self.family(target.dim).to(device)
        noise = balanced_draws(self._count(family.num_noise), family.num_noise, self.seed).to(device)
        start = self._start(density, family, noise)
        _maximise(density, start, family, noise, self.num_steps)
        try:
            fitted = _compose(start, family.loc.detach(), family.scale().detach())
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"{self._name} whitening found no Gaussian, as the best scale has no bounds: see that the integral of "
                f"exp(log_prob) is finite in every direction, or {ADVICE}"
            ) from error
        self._check_converged(density, fitted, start(family(noise)).detach())
        return Affine(fitted.loc, self.inflation * fitted.scale)

    def _count(self, num_noise: int) -> int:
        return max(_MIN_DRAWS, _DRAWS_PER_DIMENSION * num_noise) if self.num_samples is None else self.num_samples

    def _start(self, target: Target, family: Family, noise: Float[Tensor, "s e"]) -> Affine:
        """Best of N(0, I) and the Laplace approximation by the lower bound on the fixed draws."""
        zeros = torch.zeros(target.dim, dtype=torch.float64, device=noise.device)
        standard = self.simplify(Affine(zeros, torch.ones_like(zeros)))
        try:
            laplace = self.simplify(Laplace().fit(target))
        except ValueError:
            laplace = standard
        with torch.no_grad():
            bounds = [self._bound(target, start, family(noise)) for start in (standard, laplace)]
        if not max(bounds) > -math.inf:
            raise ValueError(f"{self._name} whitening needs a finite log_prob at every draw of its start: {ADVICE}")
        return standard if bounds[0] > bounds[1] else laplace

    def _bound(self, target: Target, start: Affine, z: Float[Tensor, "s d"]) -> float:
        try:
            bound = (target.log_prob(start(z)).mean() + start.log_det).item()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{self._name} whitening needs log_prob to take float64 points, {ADVICE}: {reason}"
            ) from error
        return bound if math.isfinite(bound) else -math.inf

    def _check_converged(self, target: Target, fitted: Affine, x: Float[Tensor, "s d"]) -> None:
        """Stationarity in the mean and under a common factor on the scale, which every family has."""
        score = target.score(x).detach()
        drift = fitted.pull_back(score.mean(0, keepdim=True)).norm() / math.sqrt(fitted.dim)
        growth = 1 + ((x - fitted.loc) * score).sum(1).mean() / fitted.dim
        if not (drift < _TOLERANCE and growth.abs() < _TOLERANCE):
            raise ValueError(
                f"{self._name} whitening found no Gaussian in num_steps={self.num_steps} (its mean still moves by "
                f"{drift.item():.2g} and its scale by {growth.item():.2g} standard deviations): raise it or {ADVICE}"
            )

    @property
    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]


def balanced_draws(num: int, dim: int, seed: int) -> Float[Tensor, "s e"]:
    """Quasi-random standard normal draws in pairs ±ε, with second moments exactly I where 2 ``dim`` ≤ ``num``.

    With fewer draws only the variances are exact.
    """
    sobol = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    uniform = sobol.draw((num + 1) // 2, dtype=torch.float64)
    half = torch.special.ndtri(uniform.clamp(1e-10, 1 - 1e-10))
    if len(half) >= dim:
        upper = torch.linalg.qr(half).R
        # Q in place of half Q: the factor with a positive diagonal moves the draws as little as possible
        upper = upper * upper.diagonal().sign()[:, None]
        half = torch.linalg.solve_triangular(upper, half, upper=True, left=False) * math.sqrt(len(half))
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def _maximise(target: Target, start: Affine, family: Family, noise: Float[Tensor, "s e"], num_steps: int) -> None:
    """Climb the lower bound in place."""
    optimizer = torch.optim.LBFGS(
        family.parameters(), max_iter=num_steps, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def negative_bound() -> float:
        optimizer.zero_grad()
        x = start(family(noise))
        log_prob, score = target.log_prob_and_score(x.detach())
        log_det = family.log_det()
        value = -(log_prob.detach().mean() + log_det.detach()).item()
        if not (math.isfinite(value) and score.isfinite().all()):
            # a wall to the line search: an infinite value would make its interpolation NaN
            return _wall(family)
        torch.autograd.backward([x, -log_det], [-score.detach() / len(x), torch.ones_like(log_det)])
        return value

    optimizer.step(negative_bound)  # type: ignore[no-untyped-call]


def _wall(family: Family) -> float:
    for parameter in family.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return 1e20


def _compose(start: Affine, loc: Float[Tensor, " d"], scale: Float[Tensor, " d"] | Float[Tensor, "d d"]) -> Affine:
    """Write x = m + L (μ + T ε) as one change of variables."""
    if start.scale.ndim == 1 and scale.ndim == 1:
        product = start.scale * scale
    else:
        left, right = (factor.diag() if factor.ndim == 1 else factor for factor in (start.scale, scale))
        product = left @ right
    return Affine(start(loc[None])[0], product)
