"""Sequential Monte Carlo on the kernels of the integrator."""

from sbflow.smc.annealed import sample_annealed
from sbflow.smc.evidence import Cost, Evidence
from sbflow.smc.feynman_kac import FeynmanKacDivergence, FeynmanKacFlow, GaussianStart, SampleStart, Start
from sbflow.smc.guided import GuidedDenoising, WeightedKernel
from sbflow.smc.moves import Hmc, Mala
from sbflow.smc.particles import Field, Particles, SamplingError, SMCPath, effective_sample_size, log_mean_exp
from sbflow.smc.probe import Probe, probe_beyond
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
from sbflow.smc.schedule import TunedTimes, tune_times
from sbflow.smc.tuning import tune
from sbflow.smc.twisted import Reward, SmoothedReward, TwistedKernel

__all__ = [
    "Cost",
    "Evidence",
    "FeynmanKacDivergence",
    "FeynmanKacFlow",
    "Field",
    "GaussianStart",
    "GuidedDenoising",
    "Hmc",
    "Ladder",
    "Mala",
    "Particles",
    "Probe",
    "Resampling",
    "Reward",
    "SMCPath",
    "SampleStart",
    "SamplingError",
    "Scheme",
    "SmoothedReward",
    "Start",
    "TunedTimes",
    "TwistedKernel",
    "WeightedKernel",
    "effective_sample_size",
    "init",
    "killing",
    "log_mean_exp",
    "multinomial",
    "probe_beyond",
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
    "tune_times",
]
