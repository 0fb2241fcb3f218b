"""Sequential Monte Carlo on the kernels of the integrator."""

from sbflow.smc.evidence import Evidence
from sbflow.smc.guided import GuidedDenoising, WeightedKernel
from sbflow.smc.particles import Field, Particles, SMCPath, effective_sample_size, log_mean_exp
from sbflow.smc.resampling import Resampling, systematic
from sbflow.smc.sampler import init, resample, sample, step

__all__ = [
    "Evidence",
    "Field",
    "GuidedDenoising",
    "Particles",
    "Resampling",
    "SMCPath",
    "WeightedKernel",
    "effective_sample_size",
    "init",
    "log_mean_exp",
    "resample",
    "sample",
    "step",
    "systematic",
]
