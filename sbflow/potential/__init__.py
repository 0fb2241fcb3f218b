"""Potentials that guide the particle sampler."""

from sbflow.potential.base import Potential
from sbflow.potential.geometric import GeometricPotential, StandardisedPotential
from sbflow.potential.mixture import MixturePotential
from sbflow.potential.naive import NaivePotential
from sbflow.potential.neural import Guide, NeuralPotential

__all__ = [
    "GeometricPotential",
    "Guide",
    "MixturePotential",
    "NaivePotential",
    "NeuralPotential",
    "Potential",
    "StandardisedPotential",
]
