"""The algorithms, as LightningModules."""

from sbflow.algorithm.annealed_smc import AnnealedSMC
from sbflow.algorithm.evidence_sampler import EvidenceSampler, IncompleteRun
from sbflow.algorithm.particle_denoising_diffusion_sampler import ParticleDenoisingDiffusionSampler
from sbflow.algorithm.schrodinger_bridge_flow import Direction, SchrodingerBridgeFlow

__all__ = [
    "AnnealedSMC",
    "Direction",
    "EvidenceSampler",
    "IncompleteRun",
    "ParticleDenoisingDiffusionSampler",
    "SchrodingerBridgeFlow",
]
