"""Affine changes of variables that make the reference law standard normal."""

from sbflow.whitening.affine import Affine
from sbflow.whitening.base import Whitening
from sbflow.whitening.laplace import Laplace
from sbflow.whitening.standard import Standard
from sbflow.whitening.whitened import Whitened

__all__ = ["Affine", "Laplace", "Standard", "Whitened", "Whitening"]
