"""Several verifiers of any scale, combined by their rankings."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.verifier.base import Verifier

__all__ = ["RankEnsemble", "mean_rank"]


class RankEnsemble:
    """Mean of the ranks that several verifiers give, so that none of them needs a scale or a weight.

    Called directly, it ranks all rows of the call among each other; a search ranks the candidates of each input.

    Args:
        verifiers: at least one.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, verifiers: Sequence[Verifier]) -> None:
        if not verifiers:
            raise ValueError("verifiers must name at least one verifier, got none")
        self.verifiers = tuple(verifiers)

    def columns(self, x_in: Float[Tensor, "n *event"], x_out: Float[Tensor, "n *event"]) -> Float[Tensor, "n m"]:
        """What each verifier says."""
        return torch.stack([verifier(x_in, x_out) for verifier in self.verifiers], 1)

    def __call__(self, x_in: Float[Tensor, "n *event"], x_out: Float[Tensor, "n *event"]) -> Float[Tensor, " n"]:
        """Mean rank of each row, from 0 (worst) to 1 (best)."""
        return mean_rank(self.columns(x_in, x_out)[None])[0]


def mean_rank(columns: Float[Tensor, "n candidates m"]) -> Float[Tensor, "n candidates"]:
    """Share of the other candidates that each one beats, averaged over m rankings; a tie counts half.

    >>> mean_rank(torch.tensor([[[1.0], [3.0], [2.0]]]))
    tensor([[0.0000, 1.0000, 0.5000]])
    """
    others = columns.shape[1] - 1
    if others == 0:
        return columns.new_full(columns.shape[:2], 0.5)
    mine, theirs = columns[:, :, None], columns[:, None]
    # each one ties with itself
    beaten = (mine > theirs).sum(2) + 0.5 * ((mine == theirs).sum(2) - 1)
    return (beaten / others).mean(2).to(columns.dtype)
