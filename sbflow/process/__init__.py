"""Reference diffusions."""

from sbflow.process.base import ReferenceProcess
from sbflow.process.brownian import Brownian
from sbflow.process.epsilon import suggest_epsilon
from sbflow.process.gaussian_bridge import GaussianBridge, gaussian_bridge
from sbflow.process.mixture_bridge import MixtureBridge
from sbflow.process.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sbflow.process.schedule import Constant, Cosine, Dds, Linear, Schedule, equalise, uniform_times

__all__ = [
    "Brownian",
    "Constant",
    "Cosine",
    "Dds",
    "GaussianBridge",
    "Linear",
    "MixtureBridge",
    "OrnsteinUhlenbeck",
    "ReferenceProcess",
    "Schedule",
    "equalise",
    "gaussian_bridge",
    "suggest_epsilon",
    "uniform_times",
]
