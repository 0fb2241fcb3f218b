r"""Reference diffusions :math:`dX_t = f(t, X_t) dt + g(t) dW_t`, linear and Gaussian, on :math:`t \in [0, 1]`.

The transition :math:`X_t | X_s = x \sim N(a x, b^2 I)` determines everything else: the bridge between two end points,
and the drifts that lead to either of them.
"""

import abc

from jaxtyping import Float
from torch import Tensor

from sbflow.gaussian import Gaussian
from sbflow.tensor import expand_to

__all__ = ["ReferenceProcess"]


class ReferenceProcess(abc.ABC):
    """Linear-Gaussian diffusion; stateless, so that one object may serve any number of owners."""

    @abc.abstractmethod
    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (a, b) of X_t | X_s = x ~ N(a x, b² I), for s <= t."""

    @abc.abstractmethod
    def drift(self, x: Float[Tensor, "n *event"], t: Tensor) -> Float[Tensor, "n *event"]:
        """f(t, x)."""

    @abc.abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """g(t), the standard deviation of the noise per square root of time."""

    def kernel(self, x: Float[Tensor, "n *event"], s: Tensor, t: Tensor) -> Gaussian:
        """Law of X_t given X_s = x."""
        a, b = self.transition(s, t)
        return Gaussian(expand_to(a, x) * x, b)

    def bridge(self, x0: Float[Tensor, "n *event"], x1: Float[Tensor, "n *event"], t: Tensor) -> Gaussian:
        """Law of X_t given X_0 = x0 and X_1 = x1, by conditioning the Gaussian (X_t, X_1) given X_0."""
        a0, b0 = self.transition(t.new_zeros(()), t)
        a1, b1 = self.transition(t, t.new_ones(()))
        variance = (a1 * b0) ** 2 + b1**2
        mean = expand_to(a0 * b1**2 / variance, x0) * x0 + expand_to(a1 * b0**2 / variance, x1) * x1
        return Gaussian(mean, b0 * b1 / variance.sqrt())

    def drift_to_end(
        self, x: Float[Tensor, "n *event"], x1: Float[Tensor, "n *event"], t: Tensor
    ) -> Float[Tensor, "n *event"]:
        """Drift of the bridge to x1: f + g² ∇_x log p(X_1 = x1 | X_t = x); singular at t = 1."""
        a, b = self.transition(t, t.new_ones(()))
        gain = a * (self.diffusion(t) / b) ** 2
        return self.drift(x, t) + expand_to(gain, x) * (x1 - expand_to(a, x) * x)

    def drift_to_start(
        self, x: Float[Tensor, "n *event"], x0: Float[Tensor, "n *event"], t: Tensor
    ) -> Float[Tensor, "n *event"]:
        """Forward-time drift of the reversal that leads back to x0: f − g² ∇_x log p(X_t = x | X_0 = x0).

        Reverse time follows its negative; singular at t = 0.
        """
        a, b = self.transition(t.new_zeros(()), t)
        gain = (self.diffusion(t) / b) ** 2
        return self.drift(x, t) + expand_to(gain, x) * (x - expand_to(a, x) * x0)
