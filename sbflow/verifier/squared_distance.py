"""How near a result is to its input, or to a fixed point."""

from jaxtyping import Float
from torch import Tensor

from sbflow.tensor import flat_sum

__all__ = ["NegativeSquaredDistance"]


class NegativeSquaredDistance:
    """−‖result − input‖², summed over the event, in squared units of the data.

    Args:
        point: a fixed point ``[*event]`` that takes the place of the input.
    """

    def __init__(self, point: Tensor | None = None) -> None:
        self.point = point

    def __call__(self, x_in: Float[Tensor, "n *event"], x_out: Float[Tensor, "n *event"]) -> Float[Tensor, " n"]:
        """Scores."""
        goal = x_in if self.point is None else self.point.to(x_out)
        return -flat_sum((x_out - goal) ** 2)
