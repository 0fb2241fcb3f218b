"""Whether an optimiser's step may be one kernel."""

from lightning import LightningModule
from lightning.pytorch.plugins import MixedPrecision

__all__ = ["may_fuse"]


def may_fuse(module: LightningModule) -> bool:
    """Whether to take Adam's fused form, one kernel for all parameters: not where Lightning could not clip gradients.

    Under mixed precision it refuses to clip for an optimiser that unscales them itself, for which it takes every fused
    one.
    """
    attached = module._trainer is not None
    return not (attached and isinstance(module.trainer.precision_plugin, MixedPrecision))
