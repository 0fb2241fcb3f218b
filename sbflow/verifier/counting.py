"""Counts the calls of a verifier."""

from jaxtyping import Float
from torch import Tensor

from sbflow.verifier.base import Verifier

__all__ = ["Counting"]


class Counting:
    """The same verifier, with a count of the results that it was shown.

    Attributes:
        evaluations: results judged so far.

    Args:
        verifier: the one to count.
    """

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.evaluations = 0

    def __call__(self, x_in: Float[Tensor, "n *event"], x_out: Float[Tensor, "n *event"]) -> Float[Tensor, " n"]:
        """Scores."""
        self.evaluations += len(x_out)
        return self.verifier(x_in, x_out)
