"""Unnormalised densities to sample from."""

from sbflow.target.banana import Banana
from sbflow.target.base import Target
from sbflow.target.bridgestan import BridgeStanTarget
from sbflow.target.brownian import Brownian, BrownianMotion
from sbflow.target.callable import CallableTarget, LogDensity
from sbflow.target.check import check_target
from sbflow.target.constrained import ConstrainedTarget, as_target
from sbflow.target.constraint import Constraints
from sbflow.target.counting import CountingTarget
from sbflow.target.double_well import DoubleWell, ProductOfWells
from sbflow.target.external import ExternalTarget
from sbflow.target.funnel import Funnel
from sbflow.target.gaussian import GaussianTarget
from sbflow.target.geometric import GeometricTarget
from sbflow.target.gmm40 import GMM40
from sbflow.target.jax import JaxTarget
from sbflow.target.lgcp import LGCP, LogGaussianCoxProcess
from sbflow.target.logistic_regression import Ionosphere, LogisticRegression, Sonar
from sbflow.target.many_well import ManyWell
from sbflow.target.mixture import GaussianMixture, Mixture2D
from sbflow.target.numpyro import NumPyroTarget
from sbflow.target.pymc import PyMCTarget
from sbflow.target.student_t_mixture import StudentTMixture

__all__ = [
    "GMM40",
    "LGCP",
    "Banana",
    "BridgeStanTarget",
    "Brownian",
    "BrownianMotion",
    "CallableTarget",
    "ConstrainedTarget",
    "Constraints",
    "CountingTarget",
    "DoubleWell",
    "ExternalTarget",
    "Funnel",
    "GaussianMixture",
    "GaussianTarget",
    "GeometricTarget",
    "Ionosphere",
    "JaxTarget",
    "LogDensity",
    "LogGaussianCoxProcess",
    "LogisticRegression",
    "ManyWell",
    "Mixture2D",
    "NumPyroTarget",
    "ProductOfWells",
    "PyMCTarget",
    "Sonar",
    "StudentTMixture",
    "Target",
    "as_target",
    "check_target",
]
