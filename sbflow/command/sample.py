"""``sbflow sample``: estimate log Z and draw weighted samples."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities import move_data_to_device
from omegaconf import DictConfig

from sbflow.algorithm import IncompleteRun, ParticleDenoisingDiffusionSampler
from sbflow.algorithm.combination import combine as combine_models
from sbflow.command.build import build, check_type
from sbflow.command.processes import Ranks, launched
from sbflow.command.rank import first_process
from sbflow.command.report import record_command, write_report
from sbflow.command.run import load_run, write_config
from sbflow.figure import save_figure
from sbflow.metric import SampleQuality
from sbflow.smc import Evidence
from sbflow.smc.islands import combine

__all__ = ["sample"]

OPTIONS = {
    "checkpoint": str | list[str] | None,
    "exponent": float | None,
    "exponents": list[float] | None,
    "speed": float | None,
    "num_particles": int | None,
    "num_steps": int | None,
    "replicates": int,
    "seed": int,
    "device": str,
    "devices": int,
    "num_nodes": int,
    "quality": bool,
    "trust": bool,
}


def sample(config: DictConfig) -> float:
    """Write ``evidence.json`` and ``samples.pt`` into the run folder and return log Z.

    Each of several processes makes runs of its own; the first one writes the record of all.
    """
    _check(config)
    sampler = _sampler(config)
    if config.quality and getattr(sampler, "target", None) is None:
        raise ValueError(f"quality=true compares with samples of the target, which a {type(sampler).__name__} has not")
    folder = Path(HydraConfig.get().runtime.output_dir)
    for name, found in (("evidence.json", "an estimate"), ("checkpoints", "a training run")):
        if (folder / name).exists():
            raise ValueError(f"run_dir={folder} holds {found} already; choose another folder, or remove {name}")
    if first_process():
        write_config(folder, config)
        record_command(folder)
    with launched(config.device, config.devices, config.num_nodes) as ranks:
        islands = ranks.gather(_island(sampler.to(ranks.device), config, ranks))
    if ranks.rank > 0:
        return math.nan
    evidence = _whole(islands, folder)
    return _finish(evidence, sampler.to("cpu"), config, folder)


def _check(config: DictConfig) -> None:
    for name, annotation in OPTIONS.items():
        check_type(name, config[name], annotation)
    for name, least in (("seed", 0), ("devices", 1), ("num_nodes", 1)):
        if config[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {config[name]}")


def _finish(evidence: Evidence, sampler: Any, config: DictConfig, folder: Path) -> float:
    """Measure, save, draw and print."""
    if config.quality:
        measured = SampleQuality().compare(evidence, sampler.target)
        evidence = dataclasses.replace(evidence, quality=evidence.quality | measured)
    evidence.save(folder)
    save_figure(evidence.plot(), folder / "figures" / "evidence.png")
    write_report(folder)
    print(f"{evidence}\n  {'run folder':<24}{folder}")
    if evidence.warning:
        print(f"sbflow: {evidence.warning}", file=sys.stderr)
    return evidence.log_z


class Island(NamedTuple):
    """Runs of one process.

    Attributes:
        evidence: their record; of a breakdown what had been computed before, or None.
        complaint: why they broke down, or empty.
    """

    evidence: Evidence | None
    complaint: str = ""


def _island(sampler: Any, config: DictConfig, ranks: Ranks) -> Island:
    """Make the runs of this process."""
    try:
        evidence = sampler.estimate(
            num_particles=config.num_particles,
            num_steps=config.num_steps,
            replicates=config.replicates,
            seed=config.seed,
            island=ranks.rank,
        )
    except IncompleteRun as error:
        return Island(error.evidence and _on_cpu(error.evidence), str(error))
    return Island(_on_cpu(evidence))


def _on_cpu(evidence: Evidence) -> Evidence:
    values = {entry.name: getattr(evidence, entry.name) for entry in dataclasses.fields(evidence)}
    return Evidence(**move_data_to_device(values, torch.device("cpu")))


def _whole(islands: list[Island], folder: Path) -> Evidence:
    """The record of all; where one broke down, what it had computed goes into the folder ``incomplete``."""
    broken = next((island for island in islands if island.complaint), None)
    if broken is None:
        return combine([island.evidence for island in islands if island.evidence])
    if broken.evidence is None:
        raise FloatingPointError(broken.complaint)
    kept = folder / "incomplete"
    kept.mkdir(exist_ok=True)
    broken.evidence.save(kept)
    raise FloatingPointError(f"{broken.complaint}; what was computed before is in {kept}")


def _sampler(config: DictConfig) -> Any:
    """The trained sampler of a checkpoint, or an untrained one for a target."""
    if (config.checkpoint is None) == (config.get("target") is None):
        raise ValueError("give either checkpoint=RUN (trained) or target=NAME (untrained)")
    if config.checkpoint is not None:
        _refuse_parts()
        runs = [config.checkpoint] if isinstance(config.checkpoint, str) else list(config.checkpoint)
        return _combined([load_run(run, needs="estimate", trust=config.trust).algorithm for run in runs], config)
    return _combined([build(config, "algorithm")], config)


def _combined(samplers: list[Any], config: DictConfig) -> Any:
    """One sampler as it is, or the product of powers of several."""
    powers = [config.exponent] if config.exponent is not None else config.exponents
    if config.exponent is not None and config.exponents is not None:
        raise ValueError("give exponent=A for one checkpoint or exponents=[A1,A2] for several, not both")
    if powers is None:
        if len(samplers) != 1 or config.speed is not None:
            raise ValueError(
                f"{len(samplers)} checkpoints, or speed={config.speed}, need exponents=[A1,A2] or exponent=A"
            )
        return samplers[0]
    options = {} if config.speed is None else {"speed": config.speed}
    if options and not all(isinstance(one, ParticleDenoisingDiffusionSampler) for one in samplers):
        kinds = ", ".join(type(one).__name__ for one in samplers)
        raise ValueError(f"speed is an option for particle samplers, not for {kinds}: leave speed={config.speed} out")
    return combine_models(samplers, list(powers), **options)


def _refuse_parts() -> None:
    """A trained sampler comes with its parts: an override of one would be ignored."""
    for override in HydraConfig.get().overrides.task:
        key = override.lstrip("+~").partition("=")[0]
        if key not in (*OPTIONS, "run_dir"):
            raise ValueError(f"{key} cannot be changed with checkpoint=RUN; allowed: {', '.join(OPTIONS)}, run_dir")
