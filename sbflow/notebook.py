"""The two calls for notebooks, thin over the same parts that the commands use."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from sbflow.algorithm import AnnealedSMC, EvidenceSampler, ParticleDenoisingDiffusionSampler, SchrodingerBridgeFlow
from sbflow.algorithm.evidence_sampler import check_count
from sbflow.callback import Progress
from sbflow.data import ParticleData, UnpairedTensors
from sbflow.network import MLP
from sbflow.process import Brownian, OrnsteinUhlenbeck, suggest_epsilon
from sbflow.smc import Evidence
from sbflow.target import Constraints, LogDensity, Target, as_target
from sbflow.whitening import FullRank, Isotropic, Laplace, LowRank, MeanField, Pilot, Standard, Whitening

__all__ = ["estimate_log_z", "fit_bridge"]

WHITENINGS: dict[str, Callable[[], Whitening]] = {
    "laplace": Laplace,
    "standard": Standard,
    "isotropic": Isotropic,
    "mean_field": MeanField,
    "low_rank": LowRank,
    "full_rank": FullRank,
    "pilot": lambda: Pilot(Standard()),
}


def estimate_log_z(
    log_prob: LogDensity | str | Target,
    dim: int | None = None,
    *,
    constraints: Constraints | None = None,
    method: Literal["pdds", "smc"] = "pdds",
    whitening: str | Whitening = "laplace",
    num_particles: int = 2000,
    num_steps: int | None = None,
    refinements: int = 0,
    replicates: int = 1,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Evidence:
    """Estimate the normalising constant of a density, and sample from it.

    Args:
        log_prob: unnormalised log density, differentiable by torch, of a batch of points ``[n, dim] -> [n]`` or of one
            point ``[dim] -> []``; its dotted name; or a `Target`.
        dim: number of parameters; may be left out where ``constraints`` or the target tell it.
        constraints: of bounded parameters, ``"positive"``, a list with one per block, or a dictionary of names, see
            `sbflow.target.ConstrainedTarget`; samples come back within them.
        method: ``"pdds"``, the Particle Denoising Diffusion Sampler, or ``"smc"``, annealed sequential Monte Carlo.
        whitening: where the particles start: ``"laplace"`` suits densities with one mode, ``"standard"`` is N(0, I),
            ``"full_rank"``, ``"low_rank"``, ``"mean_field"`` and ``"isotropic"`` are variational fits, ``"pilot"``
            takes the moments of a first run from N(0, I); or a `Whitening`.
        num_particles: particles per run.
        num_steps: steps of the sampler; by default 20, and for ``"smc"`` as many as a pilot run finds to be needed.
        refinements: trained iterations of the potential; 0 is the naive potential, without training.
        replicates: independent runs, in one sweep.
        seed: seed of all randomness; the global stream is left as it was.
        progress: show progress while training.
        **options: further options of `ParticleDenoisingDiffusionSampler` or `AnnealedSMC` (``resampling``, ``moves``,
            ``time_grid``, …).

    Raises:
        ValueError: an option out of range, a density of the wrong shape, or no mode for Laplace.
        FloatingPointError: the density gives weight to no particle.

    >>> evidence = estimate_log_z(lambda x: -0.5 * (x**2).sum(1), dim=2)
    >>> abs(evidence.log_z - 1.8379) < 0.01  # log 2π
    True
    """
    target = as_target(log_prob, dim, constraints)
    options |= {"num_particles": num_particles}
    check_count("seed", seed, 0)
    with _seeded(seed):
        if method == "smc":
            if refinements:
                raise ValueError(f"refinements must be 0 with method='smc', which learns nothing, got {refinements}")
            sampler: EvidenceSampler = AnnealedSMC(target, _whitening(whitening), num_steps=num_steps, **options)
        elif method == "pdds":
            options |= {"num_steps": 20 if num_steps is None else num_steps, "refinements": refinements}
            network = MLP((target.dim,), hidden=(64, 64)) if refinements else None
            sampler = ParticleDenoisingDiffusionSampler(
                target, _whitening(whitening), OrnsteinUhlenbeck(), network, **options
            )
        else:
            raise ValueError(f"method must be 'pdds' or 'smc', got {method!r}")
        if refinements:
            _fit(sampler, ParticleData(target), progress)
        return sampler.estimate(replicates=replicates, seed=seed)


def _whitening(whitening: str | Whitening) -> Whitening:
    if isinstance(whitening, Whitening):
        return whitening
    if whitening not in WHITENINGS:
        raise ValueError(f"whitening must be one of {', '.join(WHITENINGS)} or a Whitening, got {whitening!r}")
    return WHITENINGS[whitening]()


def fit_bridge(
    x0: Tensor | np.ndarray,
    x1: Tensor | np.ndarray,
    *,
    epsilon: float | Literal["auto"] = "auto",
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
            optimal transport, large forgets the input; by default `sbflow.process.suggest_epsilon` chooses.
        network: backbone with two directions; by default a perceptron.
        batch_size: samples of each end per step.
        seed: seed of all randomness; the global stream is left as it was.
        progress: show progress while training.
        **options: further options of `SchrodingerBridgeFlow` (``pretrain_steps``, ``finetune_steps``, ``coupling``, …).

    Returns:
        the trained flow; ``flow.translate(x, direction="forward", num_steps=30, seed=0)`` uses it.

    Raises:
        ValueError: empty sets, different event shapes, values that are not finite, or an option out of range.
    """
    data = UnpairedTensors(x0, x1, batch_size=batch_size, seed=seed)
    with _seeded(seed):
        if network is None:
            network = MLP(data.event_shape, num_directions=2)
        chosen = suggest_epsilon(*data.split("train")[:2]) if epsilon == "auto" else epsilon
        flow = SchrodingerBridgeFlow(network, Brownian(chosen), data.event_shape, **options)
        _fit(flow, data, progress)
    return flow.eval()


def _fit(module: LightningModule, data: LightningDataModule, progress: bool) -> None:
    """Train in memory: no folder, no log, no words unless asked for."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # an in-memory loader needs no worker processes; Lightning's own use of a deprecated call; no validation
            quiet = (".*does not have many workers.*", ".*treespec, LeafSpec.*", ".*no `val_dataloader`.*")
            warnings.filterwarnings("ignore", message="|".join(quiet))
            Trainer(
                max_steps=module.max_steps,
                max_epochs=-1,
                gradient_clip_val=1.0,
                limit_val_batches=0,
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
