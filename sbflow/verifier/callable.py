"""A user's own function as a verifier, by its dotted name."""

from jaxtyping import Float
from torch import Tensor

from sbflow.target.callable import import_function
from sbflow.verifier.base import Verifier

__all__ = ["CallableVerifier"]


class CallableVerifier:
    """Scores by any function of inputs and results; in Python the function alone will do.

    Args:
        function: maps inputs and results ``[n, *event]`` to scores ``[n]``, or its dotted name,
            ``my_module.my_verifier``, looked up from the current folder.

    Raises:
        ValueError: it cannot be called or found.
    """

    code_options = ("function",)

    def __init__(self, function: Verifier | str) -> None:
        self.function = import_function("function", function)

    def __call__(self, x_in: Float[Tensor, "n *event"], x_out: Float[Tensor, "n *event"]) -> Float[Tensor, " n"]:
        """Scores."""
        return self.function(x_in, x_out)
