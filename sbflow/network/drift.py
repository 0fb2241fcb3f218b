"""From a backbone to the drift of a bridge, in the units of the data."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["BridgeDrift", "Parametrisation", "TwoNetworks"]

Parametrisation = Literal["drift", "scaled", "endpoint"]
"""What the network predicts; see `BridgeDrift`."""

LARGEST_BASIS = 512
"""Dimension up to which covariances are measured whole."""

LEAST_VARIANCE = 1e-4
"""Share of the mean variance below which a direction counts as constant."""

CLOSEST = 1e-3
"""The scaled and the end-point drift are singular at u = 1; there they are taken this close to it."""


class BridgeDrift(nn.Module):
    """Drift of both directions in their own clock.

    It is v = (m_e − m_s) + a_u (x − m_u) + c_u net(D_u^(−½) M (x − m_u), u, s). The network sees inputs of unit
    variance and predicts outputs of unit scale, whatever the units of the data: m_u = (1 − u) m_s + u m_e and
    D_u = (1 − u)² v_s + u² v_e + ε u (1 − u). The moments m, v of the start and end sets are measured on the data (per
    coordinate for vectors, per channel for images) and travel in the checkpoint.

    For vectors M is the basis in which both covariances are diagonal, so that what varies little in a correlated set is
    as visible to the network as the rest, and D_u has the variances in that basis. For anything else M is the identity.

    - ``"drift"``: a = 0, c² = v_s + v_e + ε, the raw drift. The variance of its regression target grows like
      ε u / (1 − u), and `weight` weighs the loss accordingly.
    - ``"scaled"``: a = 0, c² = v_s + v_e + ε u / (1 − u), the variance of that target.
    - ``"endpoint"``: the network predicts the part of the end point that x does not tell linearly, with unit variance
      for independent pairs: a = [u v_e − (1 − u) v_s − εu] / D, c² = [v_s v_e + ε v_e u / (1 − u)] / D.

    Args:
        network: backbone, called with (x, u, direction).
        event_shape: shape of one sample.
        epsilon: variance of the reference per unit of time.
        parametrisation: one of the above.
    """

    mean: Tensor
    variance: Tensor
    measured: Tensor
    basis: Tensor
    basis_variance: Tensor

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        epsilon: float,
        *,
        parametrisation: Parametrisation = "drift",
    ) -> None:
        super().__init__()
        if parametrisation not in ("drift", "scaled", "endpoint"):
            raise ValueError(f"parametrisation must be 'drift', 'scaled' or 'endpoint', got {parametrisation!r}")
        self.network = network
        self.epsilon = epsilon
        self.parametrisation = parametrisation
        statistics = _statistics_shape(event_shape)
        self.register_buffer("mean", torch.zeros(2, *statistics))
        self.register_buffer("variance", torch.ones(2, *statistics))
        self.register_buffer("measured", torch.tensor(False))
        self.correlates = len(event_shape) == 1 and event_shape[0] <= LARGEST_BASIS
        if self.correlates:
            dim = event_shape[0]
            self.register_buffer("basis", torch.eye(dim))
            self.register_buffer("basis_variance", torch.ones(2, dim))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Read older checkpoints, which have no basis: their networks see coordinates."""
        if self.correlates and prefix + "variance" in state_dict:
            state_dict.setdefault(prefix + "basis", torch.eye(len(self.basis)))
            state_dict.setdefault(prefix + "basis_variance", state_dict[prefix + "variance"])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @torch.no_grad()
    def measure(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "m *event"]) -> None:
        """Take the moments of both ends from data.

        Raises:
            ValueError: a set is constant, so that there is nothing to transport.
        """
        for end, x in enumerate((x0, x1)):
            x = x.to(self.mean.device, self.mean.dtype)
            axes = [0, *(1 + i for i, size in enumerate(self.mean.shape[1:]) if size == 1 and x.shape[1 + i] > 1)]
            variance = x.var(dim=axes, correction=0, keepdim=True)[0]
            total = variance.mean()
            if not total > 0:
                raise ValueError(f"x{end} is constant or not finite: its variance is {float(total)}")
            self.mean[end] = x.mean(dim=axes, keepdim=True)[0]
            # a constant coordinate (a border pixel) would divide by zero
            self.variance[end] = variance.clamp_min(LEAST_VARIANCE * total)
        if self.correlates:
            basis, variance = common_basis(_covariance(x0), _covariance(x1))
            self.basis.copy_(basis)
            self.basis_variance.copy_(variance)
        self.measured.fill_(True)

    def relative_precision(self, u: Float[Tensor, " n"]) -> Float[Tensor, "n *statistics"]:
        """Inverse variance of the regression target x_e − x_s − √(ε u / (1 − u)) Z, over its average at u = 0.

        As a weight of the loss it keeps the times near 1, where the target is all noise, from drowning the rest, and
        coordinates of large scale from drowning small ones.
        """
        spread = self.variance.sum(0)
        w = u.reshape(-1, *(1,) * spread.ndim)
        return spread.mean() / (spread + self.epsilon * w / (1 - w))

    def weight(self, u: Float[Tensor, " n"], direction: Int[Tensor, " n"]) -> Float[Tensor, "n *statistics"]:
        """Weight of the squared error of the drift: for scaled and end-point networks that of a plain regression."""
        if self.parametrisation == "drift":
            return self.relative_precision(u)
        return 1 / self._coefficients(u, direction, self.mean.ndim).gain ** 2

    def forward(
        self, x: Float[Tensor, "n *event"], u: Float[Tensor, " m"], direction: Int[Tensor, " n"]
    ) -> Float[Tensor, "n *event"]:
        """Drift at own-clock time u, one per sample ``[n]`` or one for all ``[1]``."""
        c = self._coefficients(u, direction, x.ndim)
        centred = x - c.centre
        seen = centred @ self.basis.T if self.correlates else centred
        out = self.network((c.scale * seen).to(x.dtype), u, direction)
        drift = c.shift + c.gain * out
        return drift if c.slope is None else drift + c.slope * centred

    def _coefficients(self, u: Tensor, direction: Tensor, ndim: int) -> "_Coefficients":
        """At one time for all, as in rollouts, they are two rows, of which every sample has one."""
        if len(u) != 1:
            return self._coefficients_of_rows(u, direction, ndim)
        both = self._coefficients_of_rows(u, torch.arange(2, device=direction.device), ndim)
        return _Coefficients._make(None if part is None else part[direction] for part in both)

    def _coefficients_of_rows(self, u: Tensor, direction: Tensor, ndim: int) -> "_Coefficients":
        w = u.reshape(-1, *(1,) * (ndim - 1))
        mean_s, mean_e = self.mean[direction], self.mean[1 - direction]
        var_s, var_e = self.variance[direction], self.variance[1 - direction]
        slope = None
        if self.parametrisation == "drift":
            square = var_s + var_e + self.epsilon
        else:
            noise = self.epsilon * w / (1 - w).clamp_min(CLOSEST)
            square = var_s + var_e + noise
        if self.parametrisation == "endpoint":
            variance = self._spread(var_s, var_e, w)
            square = (var_s + noise) * var_e / variance
            slope = (w * var_e - (1 - w) * var_s - self.epsilon * w) / variance
        # rows of the basis have length 1, so that white noise keeps its variance
        seen = self.basis_variance if self.correlates else self.variance
        scale = self._spread(seen[direction], seen[1 - direction], w).rsqrt()
        return _Coefficients(mean_e - mean_s, torch.lerp(mean_s, mean_e, w), scale, square.sqrt(), slope)

    def _spread(self, var_s: Tensor, var_e: Tensor, w: Tensor) -> Tensor:
        """Variance of x at time w for independent ends."""
        return (1 - w) ** 2 * var_s + w**2 * var_e + self.epsilon * w * (1 - w)


class TwoNetworks(nn.Module):
    """Two backbones of one architecture in one module, each for its direction.

    Args:
        network: the backbone; copied, so that both start alike.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.forwards = network
        self.backwards = deepcopy(network)

    def forward(
        self, x: Float[Tensor, "n *event"], t: Float[Tensor, " m"], direction: Int[Tensor, " n"]
    ) -> Float[Tensor, "n *event"]:
        """Each row by the network of its direction."""
        out = torch.empty_like(x)
        for flag, network in enumerate((self.forwards, self.backwards)):
            rows = (direction == flag).nonzero().squeeze(1)
            if len(rows):
                result = network(x[rows], t if len(t) == 1 else t[rows], direction[rows])
                out = out.to(result.dtype).index_copy(0, rows, result)
        return out


class _Coefficients(NamedTuple):
    """Of the affine part and of the network, per row."""

    shift: Tensor
    centre: Tensor
    scale: Tensor
    gain: Tensor
    slope: Tensor | None


def common_basis(
    cov0: Float[Tensor, "d d"], cov1: Float[Tensor, "d d"]
) -> tuple[Float[Tensor, "d d"], Float[Tensor, "2 d"]]:
    """Find the basis M, of rows of length 1, in which two covariances are diagonal: M S0 Mᵀ and M S1 Mᵀ.

    Args:
        cov0: symmetric and positive definite.
        cov1: symmetric.

    Returns:
        M and the two diagonals, in double precision.
    """
    root = torch.linalg.cholesky(cov0.double())
    half = torch.linalg.solve_triangular(root, cov1.double(), upper=False)
    inner = torch.linalg.solve_triangular(root, half.T, upper=False)
    vectors = torch.linalg.eigh((inner + inner.T) / 2)[1]
    rows = torch.linalg.solve_triangular(root.T, vectors, upper=True).T
    # of the two signs of a row the one that keeps the sign of the coordinate that it resembles
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    basis = rows / rows.norm(dim=1, keepdim=True) * largest.sign()
    return basis, torch.stack([(basis @ cov.double() * basis).sum(1) for cov in (cov0, cov1)])


def _covariance(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """In double precision, with a least variance in directions in which nothing varies."""
    centred = x.double() - x.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    return (vectors * values.clamp_min(LEAST_VARIANCE * values.mean())) @ vectors.T


def _statistics_shape(event_shape: Sequence[int]) -> tuple[int, ...]:
    """Per coordinate for vectors, per channel for anything with more axes."""
    return (event_shape[0], *(1,) * (len(event_shape) - 1))
