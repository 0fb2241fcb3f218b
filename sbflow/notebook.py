"""The two calls for notebooks, thin over the same parts that the commands use."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from sbflow.algorithm import ParticleDenoisingDiffusionSampler, SchrodingerBridgeFlow
from sbflow.callback import Progress
from sbflow.data import ParticleData, UnpairedTensors
from sbflow.network import MLP
from sbflow.process import Brownian, OrnsteinUhlenbeck
from sbflow.smc import Evidence
from sbflow.target import CallableTarget, LogDensity
from sbflow.whitening import Laplace, Standard, Whitening

__all__ = ["estimate_log_z", "fit_bridge"]

WHITENINGS = {"laplace": Laplace, "standard": Standard}


def estimate_log_z(
    log_prob: LogDensity,
    dim: int,
    *,
    whitening: str | Whitening = "laplace",
    num_particles: int = 2000,
    num_steps: int = 20,
    refinements: int = 0,
    replicates: int = 1,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Evidence:
    """Estimate the normalising constant of a density, and sample from it.

    Args:
        log_prob: maps points ``[n, dim]`` to unnormalised log densities ``[n]``; differentiable by torch.
        dim: dimension.
        whitening: ``"laplace"`` suits densities with one mode, ``"standard"`` is N(0, I); or a `Whitening`.
        num_particles: particles per run.
        num_steps: steps of the sampler.
        refinements: trained iterations of the potential; 0 is the naive potential, without training.
        replicates: independent runs, in one sweep.
        seed: seed of all randomness; the global stream is left as it was.
        progress: show progress while training.
        **options: further options of `ParticleDenoisingDiffusionSampler`.

    Raises:
        ValueError: an option out of range, a density of the wrong shape, or no mode for Laplace.
        FloatingPointError: the density is NaN somewhere.

    >>> evidence = estimate_log_z(lambda x: -0.5 * (x**2).sum(1), dim=2)
    >>> abs(evidence.log_z - 1.8379) < 0.01  # log 2π
    True
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if isinstance(whitening, str):
        if whitening not in WHITENINGS:
            raise ValueError(f"whitening must be one of {', '.join(WHITENINGS)} or a Whitening, got {whitening!r}")
        whitening = WHITENINGS[whitening]()
    target = CallableTarget(log_prob, dim, dtype=_only_dtype(log_prob, dim))
    with _seeded(seed):
        network = MLP((dim,), hidden=(64, 64)) if refinements else None
        sampler = ParticleDenoisingDiffusionSampler(
            target,
            whitening,
            OrnsteinUhlenbeck(),
            network,
            num_steps=num_steps,
            num_particles=num_particles,
            refinements=refinements,
            **options,
        )
        if refinements:
            _fit(sampler, ParticleData(target), progress)
        return sampler.estimate(replicates=replicates, seed=seed)


def fit_bridge(
    x0: Tensor | np.ndarray,
    x1: Tensor | np.ndarray,
    *,
    epsilon: float = 1.0,
    network: nn.Module | None = None,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> SchrodingerBridgeFlow:
    """Learn the Schrödinger bridge between two sets of samples.

    Args:
        x0: samples of π₀ ``[n0, *event]``, cast to the default floating dtype.
        x1: samples of π₁ ``[n1, *event]``; n1 need not equal n0.
        epsilon: variance of the Brownian reference per unit of time, in squared units of the data: small follows
            optimal transport, large forgets the input.
        network: backbone with two directions; by default a perceptron.
        batch_size: samples of each end per step.
        seed: seed of all randomness; the global stream is left as it was.
        progress: show progress while training.
        **options: further options of `SchrodingerBridgeFlow` (``pretrain_steps``, ``finetune_steps``, …).

    Returns:
        the trained flow; ``flow.translate(x, direction="forward", num_steps=30, seed=0)`` uses it.

    Raises:
        ValueError: empty sets, different event shapes, values that are not finite, or an option out of range.
    """
    data = UnpairedTensors(x0, x1, batch_size=batch_size, seed=seed)
    with _seeded(seed):
        if network is None:
            network = MLP(data.event_shape, num_directions=2)
        flow = SchrodingerBridgeFlow(network, Brownian(epsilon), data.event_shape, **options)
        _fit(flow, data, progress)
    return flow.eval()


def _only_dtype(log_prob: LogDensity, dim: int) -> torch.dtype | None:
    """The one dtype that a density takes because its data have it; None where it takes float32 and float64."""
    works = []
    for dtype in (torch.float32, torch.float64):
        try:
            log_prob(torch.zeros(1, dim, dtype=dtype))
            works.append(dtype)
        except RuntimeError:
            # torch refuses to mix dtypes; any other fault comes to light at the first evaluation
            continue
    return works[0] if len(works) == 1 else None


def _fit(module: LightningModule, data: LightningDataModule, progress: bool) -> None:
    """Train in memory: no folder, no log, no words unless asked for."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # an in-memory loader needs no worker processes; Lightning's own use of a deprecated call
            warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*treespec, LeafSpec.*")
            Trainer(
                max_steps=module.max_steps,
                max_epochs=-1,
                gradient_clip_val=1.0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                devices=1,
                callbacks=[Progress()] if progress else [],
            ).fit(module, data)
    finally:
        logger.setLevel(level)
    module.cpu()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global stream for a block and restore it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
