"""Judges of a search: any function of inputs and results; these are ready-made ones."""

from sbflow.verifier.base import Verifier
from sbflow.verifier.callable import CallableVerifier
from sbflow.verifier.classifier import Classifier, ClassifierLogProbability
from sbflow.verifier.counting import Counting
from sbflow.verifier.rank_ensemble import RankEnsemble, mean_rank
from sbflow.verifier.squared_distance import NegativeSquaredDistance

__all__ = [
    "CallableVerifier",
    "Classifier",
    "ClassifierLogProbability",
    "Counting",
    "NegativeSquaredDistance",
    "RankEnsemble",
    "Verifier",
    "mean_rank",
]
