"""The algorithms, as LightningModules."""

from sbflow.algorithm.annealed_smc import AnnealedSMC
from sbflow.algorithm.combination import combine
from sbflow.algorithm.evidence_sampler import EvidenceSampler, IncompleteRun
from sbflow.algorithm.geometric_sampler import GeometricSampler
from sbflow.algorithm.particle_denoising_diffusion_sampler import ParticleDenoisingDiffusionSampler
from sbflow.algorithm.schrodinger_bridge_flow import Direction, SchrodingerBridgeFlow
from sbflow.algorithm.score_diffusion import ScoreDiffusion
from sbflow.algorithm.tilted_translation import tilted_translation

__all__ = [
    "AnnealedSMC",
    "Direction",
    "EvidenceSampler",
    "GeometricSampler",
    "IncompleteRun",
    "ParticleDenoisingDiffusionSampler",
    "SchrodingerBridgeFlow",
    "ScoreDiffusion",
    "combine",
    "tilted_translation",
]
