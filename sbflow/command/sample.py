"""``sbflow sample``: estimate log Z and draw weighted samples."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sbflow.algorithm import IncompleteRun
from sbflow.command.build import build, check_type
from sbflow.command.report import record_command, write_report
from sbflow.command.run import load_run
from sbflow.figure import save_figure
from sbflow.metric import SampleQuality
from sbflow.smc import Evidence

__all__ = ["sample"]

OPTIONS = {
    "checkpoint": str | None,
    "num_particles": int | None,
    "num_steps": int | None,
    "replicates": int,
    "seed": int,
    "quality": bool,
    "trust": bool,
}


def sample(config: DictConfig) -> float:
    """Write ``evidence.json`` and ``samples.pt`` into the run folder and return log Z."""
    for name, annotation in OPTIONS.items():
        check_type(name, config[name], annotation)
    if config.seed < 0:
        raise ValueError(f"seed must be at least 0, got {config.seed}")
    sampler = _sampler(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml")
    record_command(folder)
    evidence = _estimate(sampler, config, folder)
    if config.quality:
        evidence = dataclasses.replace(evidence, quality=SampleQuality().compare(evidence, sampler.target))
    evidence.save(folder)
    save_figure(evidence.plot(), folder / "figures" / "evidence.png")
    write_report(folder)
    print(f"{evidence}\n  {'run folder':<24}{folder}")
    if evidence.warning:
        print(f"sbflow: {evidence.warning}", file=sys.stderr)
    return evidence.log_z


def _estimate(sampler: Any, config: DictConfig, folder: Path) -> Evidence:
    """Run the sampler; where it breaks down, what it had computed goes into the folder ``incomplete``."""
    try:
        return sampler.estimate(
            num_particles=config.num_particles,
            num_steps=config.num_steps,
            replicates=config.replicates,
            seed=config.seed,
        )
    except IncompleteRun as error:
        if error.evidence is None:
            raise
        kept = folder / "incomplete"
        kept.mkdir(exist_ok=True)
        error.evidence.save(kept)
        raise FloatingPointError(f"{error}; what was computed before is in {kept}") from error


def _sampler(config: DictConfig) -> Any:
    """The trained sampler of a checkpoint, or an untrained one for a target."""
    if (config.checkpoint is None) == (config.get("target") is None):
        raise ValueError("give either checkpoint=RUN (trained) or target=NAME (untrained)")
    if config.checkpoint is not None:
        _refuse_parts()
        return load_run(config.checkpoint, needs="estimate", trust=config.trust).algorithm
    return build(config, "algorithm")


def _refuse_parts() -> None:
    """A trained sampler comes with its parts: an override of one would be ignored."""
    for override in HydraConfig.get().overrides.task:
        key = override.lstrip("+~").partition("=")[0]
        if key not in (*OPTIONS, "run_dir"):
            raise ValueError(f"{key} cannot be changed with checkpoint=RUN; allowed: {', '.join(OPTIONS)}, run_dir")
