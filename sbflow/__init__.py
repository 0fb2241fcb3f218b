"""sbflow: Schrödinger Bridge Flow and the Particle Denoising Diffusion Sampler, on shared parts."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbflow.algorithm import (
        ParticleDenoisingDiffusionSampler,
        SchrodingerBridgeFlow,
        ScoreDiffusion,
        combine,
        tilted_translation,
    )
    from sbflow.command.export import load
    from sbflow.notebook import estimate_log_z, fit_bridge
    from sbflow.selfcheck import check
    from sbflow.smc import Evidence

__all__ = [
    "Evidence",
    "ParticleDenoisingDiffusionSampler",
    "SchrodingerBridgeFlow",
    "ScoreDiffusion",
    "__version__",
    "check",
    "combine",
    "estimate_log_z",
    "fit_bridge",
    "load",
    "tilted_translation",
]

__version__ = "0.1.0"

_HOMES = {
    "Evidence": "sbflow.smc",
    "ParticleDenoisingDiffusionSampler": "sbflow.algorithm",
    "SchrodingerBridgeFlow": "sbflow.algorithm",
    "ScoreDiffusion": "sbflow.algorithm",
    "check": "sbflow.selfcheck",
    "combine": "sbflow.algorithm",
    "estimate_log_z": "sbflow.notebook",
    "fit_bridge": "sbflow.notebook",
    "load": "sbflow.command.export",
    "tilted_translation": "sbflow.algorithm",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: ``import sbflow`` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sbflow' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
