"""Unnormalised densities π = γ / Z to sample from."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Target"]


class Target(nn.Module):
    """Unnormalised density γ on R^d, known through its logarithm.

    A subclass sets ``dim`` and writes `log_prob`; what is known beyond that (the score in closed form, log Z, exact
    samples) it offers by overriding `log_prob_and_score`, ``log_normalizer`` and `sample`. Constants are buffers, so
    that ``.to(device, dtype)`` moves them. A target whose parameters are bounded is a density of unconstrained points
    all the same; `constrain` leads back to the parameters.

    Attributes:
        dim: dimension d.
        log_normalizer: log Z in nats where it is known, exactly or by a reference computation, else None; used for
            evaluation only.
        log_normalizer_stderr: standard error of ``log_normalizer``, 0 where that is exact.
        code_options: options of the constructor that may name code to be run, as a string; a config that came with
            somebody else's checkpoint must not set them unasked.
    """

    dim: int
    log_normalizer: float | None = None
    log_normalizer_stderr: float = 0.0
    code_options: ClassVar[tuple[str, ...]] = ()

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Log γ(x), unnormalised, in nats; ``-inf`` outside the support."""
        raise NotImplementedError

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Log γ(x) and ∇ log γ(x) from one evaluation; by automatic differentiation unless overridden."""

        def total(x: Tensor) -> tuple[Tensor, Tensor]:
            log_prob = self.log_prob(x)
            return log_prob.sum(), log_prob

        score, log_prob = torch.func.grad(total, has_aux=True)(x)
        return log_prob, score

    def score(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """∇ log γ(x)."""
        return self.log_prob_and_score(x)[1]

    def constrain(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Points in the space of the parameters, for those who read samples; x itself unless overridden."""
        return x

    def parameters_by_name(self, x: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, "n *shape"]]:
        """The parameters at each point, by name: ``x`` alone unless overridden."""
        return {"x": self.constrain(x)}

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Exact samples from π, where the target can give them.

        Raises:
            NotImplementedError: no exact sampler is known for this target.
        """
        raise NotImplementedError(f"{type(self).__name__} has no exact sampler")
