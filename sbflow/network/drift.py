"""From a backbone to the drift of a bridge, in the units of the data."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["BridgeDrift"]


class BridgeDrift(nn.Module):
    """Drift of both directions in their own clock: v(x, u, s) = (m_e − m_s) + c_out · net(c_in (x − m_u), u, s).

    The network sees inputs of unit variance and predicts outputs of unit scale, whatever the units of the data:
    m_u = (1 − u) m_s + u m_e, c_in = D^(−1/2) with D = (1 − u)² v_s + u² v_e + ε u (1 − u), c_out² = v_s + v_e + ε. The
    moments m, v of the start and end sets are measured on the data (per coordinate for vectors, per channel for
    images) and travel in the checkpoint.

    This is the raw drift, not the preconditioned end point, which converged to a wrong coupling in the online loop. The
    variance of its regression target grows like ε u / (1 − u); `relative_precision` weighs the loss accordingly.

    Args:
        network: backbone, called with (x, u, direction).
        event_shape: shape of one sample.
        epsilon: variance of the reference per unit of time.
    """

    mean: Tensor
    variance: Tensor
    measured: Tensor

    def __init__(self, network: nn.Module, event_shape: Sequence[int], epsilon: float) -> None:
        super().__init__()
        self.network = network
        self.epsilon = epsilon
        statistics = _statistics_shape(event_shape)
        self.register_buffer("mean", torch.zeros(2, *statistics))
        self.register_buffer("variance", torch.ones(2, *statistics))
        self.register_buffer("measured", torch.tensor(False))

    @torch.no_grad()
    def measure(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "m *event"]) -> None:
        """Take the moments of both ends from data.

        Raises:
            ValueError: a set is constant, so that there is nothing to transport.
        """
        for end, x in enumerate((x0, x1)):
            x = x.to(self.mean.dtype)
            axes = [0, *(1 + i for i, size in enumerate(self.mean.shape[1:]) if size == 1 and x.shape[1 + i] > 1)]
            variance = x.var(dim=axes, correction=0, keepdim=True)[0]
            total = variance.mean()
            if not total > 0:
                raise ValueError(f"x{end} is constant or not finite: its variance is {float(total)}")
            self.mean[end] = x.mean(dim=axes, keepdim=True)[0]
            # a constant coordinate (a border pixel) would divide by zero
            self.variance[end] = variance.clamp_min(1e-4 * total)
        self.measured.fill_(True)

    def relative_precision(self, u: Float[Tensor, " n"]) -> Float[Tensor, "n *statistics"]:
        """Inverse variance of the regression target x_e − x_s − √(ε u / (1 − u)) Z, over its average at u = 0.

        As a weight of the loss it keeps the times near 1, where the target is all noise, from drowning the rest, and
        coordinates of large scale from drowning small ones.
        """
        spread = self.variance.sum(0)
        w = u.reshape(-1, *(1,) * spread.ndim)
        return spread.mean() / (spread + self.epsilon * w / (1 - w))

    def forward(
        self, x: Float[Tensor, "n *event"], u: Float[Tensor, " m"], direction: Int[Tensor, " n"]
    ) -> Float[Tensor, "n *event"]:
        """Drift at own-clock time u, one per sample ``[n]`` or one for all ``[1]``."""
        mean_s, mean_e = self.mean[direction], self.mean[1 - direction]
        var_s, var_e = self.variance[direction], self.variance[1 - direction]
        w = u.reshape(-1, *(1,) * (x.ndim - 1))
        scale = ((1 - w) ** 2 * var_s + w**2 * var_e + self.epsilon * w * (1 - w)).rsqrt()
        centred = x - torch.lerp(mean_s, mean_e, w)
        out = self.network((scale * centred).to(x.dtype), u, direction)
        return mean_e - mean_s + (var_s + var_e + self.epsilon).sqrt() * out


def _statistics_shape(event_shape: Sequence[int]) -> tuple[int, ...]:
    """Per coordinate for vectors, per channel for anything with more axes."""
    return (event_shape[0], *(1,) * (len(event_shape) - 1))
