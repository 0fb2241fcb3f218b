"""The library against closed forms, on the machine of whoever uses it."""

from sbflow.selfcheck.measurement import Measurement
from sbflow.selfcheck.suite import check, measurements

__all__ = ["Measurement", "check", "measurements"]
