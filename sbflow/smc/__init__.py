"""Sequential Monte Carlo on the kernels of the integrator."""

from sbflow.smc.annealed import sample_annealed
from sbflow.smc.evidence import Cost, Evidence
from sbflow.smc.guided import GuidedDenoising, WeightedKernel
from sbflow.smc.moves import Hmc, Mala
from sbflow.smc.particles import Field, Particles, SamplingError, SMCPath, effective_sample_size, log_mean_exp
from sbflow.smc.resampling import (
    Resampling,
    Scheme,
    killing,
    multinomial,
    resampling_scheme,
    residual,
    ssp,
    stratified,
    systematic,
)
from sbflow.smc.sampler import Ladder, init, resample, sample, step
from sbflow.smc.tuning import adaptive_times, tune

__all__ = [
    "Cost",
    "Evidence",
    "Field",
    "GuidedDenoising",
    "Hmc",
    "Ladder",
    "Mala",
    "Particles",
    "Resampling",
    "SMCPath",
    "SamplingError",
    "Scheme",
    "WeightedKernel",
    "adaptive_times",
    "effective_sample_size",
    "init",
    "killing",
    "log_mean_exp",
    "multinomial",
    "resample",
    "resampling_scheme",
    "residual",
    "sample",
    "sample_annealed",
    "ssp",
    "step",
    "stratified",
    "systematic",
    "tune",
]
