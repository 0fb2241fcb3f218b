"""The two algorithms, as LightningModules."""

from sbflow.algorithm.particle_denoising_diffusion_sampler import ParticleDenoisingDiffusionSampler
from sbflow.algorithm.schrodinger_bridge_flow import Direction, SchrodingerBridgeFlow

__all__ = ["Direction", "ParticleDenoisingDiffusionSampler", "SchrodingerBridgeFlow"]
