r"""Bridge matching with the scores of the ends: labels of the drift that use what is known of π₀ and π₁.

For independent ends and :math:`X_u = (1-u) x_s + u x_e + \sqrt{\epsilon u (1-u)} Z` the score of X_u has three labels,

.. math:: s_s(x_s) / (1-u), \qquad s_e(x_e) / u, \qquad -Z / \sqrt{\epsilon u (1-u)},

and :math:`x_e - x_s + \epsilon u` times any mix of them has the drift as its conditional mean; the noise alone is
bridge matching. They are uncorrelated, and their covariances with :math:`x_e - x_s` are known (Stein's identity), which
gives the mix of least variance in closed form. With the inverse Fisher informations :math:`v = 1 / E[(\partial \log
\pi)^2]` of the ends, in each coordinate,

.. math:: x_e - x_s + v_s ((1-u) r - 1) s_s(x_s) + v_e (1 + u r) s_e(x_e) - r \sqrt{\epsilon u (1-u)} Z,
    \qquad r = \frac{\epsilon u + (1-u) v_s - u v_e}{(1-u)^2 v_s + u^2 v_e + \epsilon u (1-u)}.

An end without a score has v = 0; without either, r = 1 / (1 − u) is bridge matching again. For Gaussian ends with
independent coordinates the label is the drift itself. The labels of the ends extend De Bortoli et al. 2024 ("Target
Score Matching") to bridges; that and the mix are our own derivation.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sbflow.loss.mixing import others_mean_square
from sbflow.target import Target
from sbflow.tensor import expand_to

__all__ = ["EndScores"]


class EndScores(nn.Module):
    """Densities of the ends as far as they are known.

    Args:
        targets: π₀ and π₁, up to constants; None for an end that is known by samples alone.

    Raises:
        ValueError: not a pair.
    """

    def __init__(self, targets: Sequence[Target | None] = (None, None)) -> None:
        super().__init__()
        if len(targets) != 2:
            raise ValueError(f"end_scores must hold one target or null for each of the two ends, got {len(targets)}")
        self.targets = nn.ModuleDict({str(k): target for k, target in enumerate(targets) if target is not None})

    def __bool__(self) -> bool:
        """Whether either density is known."""
        return len(self.targets) > 0

    @classmethod
    def of(cls, targets: Sequence[Target | None], event_shape: Sequence[int], independent: bool) -> "EndScores":
        """Densities of the ends, after a check that their labels are right.

        Args:
            targets: as for the class.
            event_shape: shape of one sample.
            independent: whether the pairs that are trained on have independent ends.

        Raises:
            ValueError: pairs that depend on each other, or targets of another dimension.
        """
        scores = cls(targets)
        if scores and not independent:
            raise ValueError("end scores need an independent coupling: pretrain_coupling must be 'independent'")
        for dim in (target.dim for target in targets if target is not None):
            if tuple(event_shape) != (dim,):
                raise ValueError(
                    f"end_scores must have the shape of the data, {list(event_shape)}, got dimension {dim}"
                )
        return scores

    def bounded(self, direction: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Rows whose label has a bounded variance up to u = 1: those that lead to a known density."""
        return torch.where(direction == 0, "1" in self.targets, "0" in self.targets)

    def label(
        self,
        start: Float[Tensor, "n d"],
        end: Float[Tensor, "n d"],
        direction: Int[Tensor, " n"],
        u: Float[Tensor, " n"],
        noise: Float[Tensor, "n d"],
        epsilon: Tensor,
    ) -> Float[Tensor, "n d"]:
        """Label of the drift at own-clock times, unbiased for independent ends.

        Args:
            start: starts x_s.
            end: ends x_e.
            direction: 0 forward, from π₀ to π₁, or 1 backward.
            u: times in (0, 1).
            noise: √(ε u (1 − u)) Z.
            epsilon: variance of the reference per unit of time.
        """
        forward = expand_to(direction == 0, start)
        # each row holds a sample of either end, whatever its direction
        ends = (torch.where(forward, start, end), torch.where(forward, end, start))
        (s0, v0), (s1, v1) = (self._score(str(k), x) for k, x in enumerate(ends))
        score_s, score_e = torch.where(forward, s0, s1), torch.where(forward, s1, s0)
        v_s, v_e = torch.where(forward, v0, v1), torch.where(forward, v1, v0)
        w, eps = expand_to(u, start), expand_to(epsilon, start)
        variance = (1 - w) ** 2 * v_s + w**2 * v_e + eps * w * (1 - w)
        r = (eps * w + (1 - w) * v_s - w * v_e) / variance
        return end - start + v_s * ((1 - w) * r - 1) * score_s + v_e * (1 + w * r) * score_e - r * noise

    @torch.no_grad()
    def _score(self, end: str, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Scores and, for each sample, the inverse information by the others of the batch; zeros where unknown."""
        if end not in self.targets:
            return torch.zeros_like(x), torch.zeros_like(x)
        target = self.targets[end]
        assert isinstance(target, Target)
        score = target.score(x)
        information = others_mean_square(score, None, len(score))
        return score, torch.where(information > 0, 1 / information, 0)
