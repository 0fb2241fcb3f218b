"""Products of powers of densities."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sbflow.target.base import Target

__all__ = ["GeometricTarget"]


class GeometricTarget(Target):
    """γ(x) = Π_i γ_i(x)^{a_i}: a tempered density, a product, or one density over another.

    Zero wherever a factor with a positive exponent is. Powers of densities of bounded parameters are taken in the
    unconstrained coordinates, Jacobian included.

    Args:
        targets: the factors, in the same coordinates.
        exponents: a_i, finite and one for each factor; whether γ can be integrated is not checked.

    Raises:
        ValueError: no factors, not one exponent for each, or factors of different dimension.
    """

    def __init__(self, targets: Sequence[Target], exponents: Sequence[float]) -> None:
        super().__init__()
        if not targets or len(exponents) != len(targets):
            raise ValueError(f"exponents must be one number for each of {len(targets)} targets, got {list(exponents)}")
        dims = [target.dim for target in targets]
        if len(set(dims)) > 1:
            raise ValueError(f"targets must have the same dimension, got {dims}")
        self.targets = tuple(targets)
        # registered too, so that their constants move with this module
        self.factors = nn.ModuleList(targets)
        self.exponents = tuple(float(a) for a in exponents)
        self.dim = dims[0]
        # a power of a normalised density is not normalised
        self.log_normalizer = targets[0].log_normalizer if self.exponents == (1.0,) else None

    def log_prob(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Σ a_i log γ_i(x)."""
        return self._product([target.log_prob(x) for target in self.targets])

    def log_prob_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """The same, with the scores of the factors."""
        log_prob, scores = zip(*(target.log_prob_and_score(x) for target in self.targets), strict=True)
        score = torch.stack([a * score for a, score in zip(self.exponents, scores, strict=True)]).sum(0)
        return self._product(log_prob), score

    def constrain(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Points in the space of the parameters of the first factor."""
        return self.targets[0].constrain(x)

    def parameters_by_name(self, x: Float[Tensor, "n d"]) -> dict[str, Float[Tensor, "n *shape"]]:
        """The parameters of the first factor at each point, by name."""
        return self.targets[0].parameters_by_name(x)

    def _product(self, log_prob: Sequence[Float[Tensor, " n"]]) -> Float[Tensor, " n"]:
        powers = torch.stack([a * part for a, part in zip(self.exponents, log_prob, strict=True)])
        return torch.where((powers == -torch.inf).any(0), -torch.inf, powers.sum(0))
