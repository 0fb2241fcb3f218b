"""Affine changes of variables that make the reference law standard normal."""

from sbflow.whitening.affine import Affine
from sbflow.whitening.base import Whitening
from sbflow.whitening.fixed import Fixed
from sbflow.whitening.full_rank import FullRank
from sbflow.whitening.isotropic import Isotropic
from sbflow.whitening.laplace import Laplace
from sbflow.whitening.low_rank import LowRank
from sbflow.whitening.mean_field import MeanField
from sbflow.whitening.pilot import Pilot
from sbflow.whitening.standard import Standard
from sbflow.whitening.variational import Variational
from sbflow.whitening.whitened import Whitened

__all__ = [
    "Affine",
    "Fixed",
    "FullRank",
    "Isotropic",
    "Laplace",
    "LowRank",
    "MeanField",
    "Pilot",
    "Standard",
    "Variational",
    "Whitened",
    "Whitening",
]
