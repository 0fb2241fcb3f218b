"""How a reference law is fitted to a target."""

import abc
from itertools import chain

import torch

from sbflow.target.base import Target
from sbflow.whitening.affine import Affine

__all__ = ["Whitening", "device_of"]


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
