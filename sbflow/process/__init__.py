"""Reference diffusions."""

from sbflow.process.base import ReferenceProcess
from sbflow.process.brownian import Brownian
from sbflow.process.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sbflow.process.schedule import Constant, Cosine, Linear, Schedule, uniform_times

__all__ = [
    "Brownian",
    "Constant",
    "Cosine",
    "Linear",
    "OrnsteinUhlenbeck",
    "ReferenceProcess",
    "Schedule",
    "uniform_times",
]
