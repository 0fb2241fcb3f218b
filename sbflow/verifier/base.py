"""What a search needs of its judge."""

from collections.abc import Callable

from torch import Tensor

__all__ = ["Verifier"]

Verifier = Callable[[Tensor, Tensor], Tensor]
"""(inputs ``[n, *event]``, results ``[n, *event]``) -> scores ``[n]``, larger is better; no gradient is taken."""
