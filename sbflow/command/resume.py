"""Continuing a run that was stopped, by its saved config."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sbflow.command.build import check_trusted, check_type
from sbflow.command.run import read_config

__all__ = ["resumed_config"]

LENGTHS = ("algorithm.finetune_steps", "algorithm.refinements")
"""Options that make a run longer at its end, and change nothing before."""


def resumed_config(config: DictConfig) -> tuple[Path, DictConfig]:
    """Folder and config of the run to be continued; what was set beside ``resume`` is merged into it.

    How the run is executed and how long it lasts may change (``trainer.…``, ``callback.…``, ``logger``, and the steps
    of its last stage); what is learned may not.

    Raises:
        FileNotFoundError: no such run.
        ValueError: an override that would make it another run.
    """
    check_type("resume", config.resume, str)
    folder = Path(config.resume)
    saved = read_config(folder, option="resume")
    if "callback" not in saved:
        # version 0.1 had none to choose
        saved.callback = config.callback
    overrides = [override.lstrip("+~").partition("=")[0] for override in HydraConfig.get().overrides.task]
    for key in overrides:
        if key in ("resume", "trust"):
            continue
        if key.partition(".")[0] not in ("trainer", "callback", "logger") and key not in LENGTHS:
            allowed = ", ".join(("trainer.…", "callback.…", "logger", *LENGTHS))
            raise ValueError(f"{key} cannot be changed with resume=RUN; allowed: {allowed}")
        OmegaConf.update(saved, key, OmegaConf.select(config, key), force_add=True)
    if not config.trust:
        for part in saved:
            if not OmegaConf.is_missing(saved, part):
                check_trusted(saved[part], str(part))
    # the word of whoever resumes it, not of whoever wrote it
    saved.trust = config.trust
    return folder, saved
