"""How a reference law is fitted to a target."""

import abc
import copy
import math
from itertools import chain

import torch

from sbflow.target.base import Target
from sbflow.whitening.affine import Affine

__all__ = ["ADVICE", "Whitening", "check_inflation", "device_of", "double_copy"]

ADVICE = "use whitening=standard instead"


class Whitening(abc.ABC):
    """Rule that chooses the reference law N(m, L Lᵀ) for a target.

    The result is in float64, on the device of the target's constants.
    """

    @abc.abstractmethod
    def fit(self, target: Target) -> Affine:
        """Choose m and L for this target, which is left as it was."""

    @abc.abstractmethod
    def empty(self, dim: int) -> Affine:
        """Change of variables of the right shapes but not fitted, to load a checkpoint into."""


def device_of(target: Target) -> torch.device:
    """Device of the target's constants; the CPU where it has none."""
    constant = next(chain(target.buffers(), target.parameters()), None)
    return torch.device("cpu") if constant is None else constant.device


def double_copy(target: Target) -> Target:
    """Copy the target in float64: constants in float32 would limit a fit to three or four digits.

    A density that cannot be copied, because it holds a handle of another library, is used as it is.
    """
    try:
        return copy.deepcopy(target).double()
    except (TypeError, ValueError, RuntimeError):
        return target


def check_inflation(inflation: float) -> None:
    """Refuse a factor on standard deviations that makes no Gaussian.

    Raises:
        ValueError: it is not positive and finite.
    """
    if not (inflation > 0 and math.isfinite(inflation)):
        raise ValueError(f"inflation must be positive and finite, got {inflation}")
