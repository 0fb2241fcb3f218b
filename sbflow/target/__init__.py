"""Unnormalised densities to sample from."""

from sbflow.target.base import Target
from sbflow.target.callable import CallableTarget, LogDensity
from sbflow.target.counting import CountingTarget
from sbflow.target.funnel import Funnel
from sbflow.target.gaussian import GaussianTarget
from sbflow.target.logistic_regression import Ionosphere, LogisticRegression, Sonar
from sbflow.target.mixture import GaussianMixture, Mixture2D

__all__ = [
    "CallableTarget",
    "CountingTarget",
    "Funnel",
    "GaussianMixture",
    "GaussianTarget",
    "Ionosphere",
    "LogDensity",
    "LogisticRegression",
    "Mixture2D",
    "Sonar",
    "Target",
]
