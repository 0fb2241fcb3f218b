"""Reference diffusions."""

from sbflow.process.base import ReferenceProcess
from sbflow.process.brownian import Brownian
from sbflow.process.epsilon import suggest_epsilon
from sbflow.process.gaussian_bridge import GaussianBridge, gaussian_bridge
from sbflow.process.mixture_bridge import MixtureBridge
from sbflow.process.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sbflow.process.schedule import (
    Constant,
    Cosine,
    Dds,
    Interpolation,
    Linear,
    Schedule,
    equalise,
    path_length,
    uniform_times,
)

__all__ = [
    "Brownian",
    "Constant",
    "Cosine",
    "Dds",
    "GaussianBridge",
    "Interpolation",
    "Linear",
    "MixtureBridge",
    "OrnsteinUhlenbeck",
    "ReferenceProcess",
    "Schedule",
    "equalise",
    "gaussian_bridge",
    "path_length",
    "suggest_epsilon",
    "uniform_times",
]
