"""The trainer of a run: callbacks, loggers and checkpoint files around the options that a user sets."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from sbflow.callback import AtomicCheckpointIO, Checkpoints, MetricsFile, Progress, RankStates, StageCheckpoint
from sbflow.command.build import build, check_options, check_trusted
from sbflow.command.rank import first_process

__all__ = ["make_trainer", "quiet", "trainer_options"]

RESERVED = {
    "max_steps",
    "max_epochs",
    "default_root_dir",
    "logger",
    "callbacks",
    "plugins",
    "enable_checkpointing",
    "enable_progress_bar",
    "enable_model_summary",
    "use_distributed_sampler",
    "num_sanity_val_steps",
    "limit_val_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
}


def make_trainer(config: DictConfig, folder: Path, max_steps: int, start: int) -> Trainer:
    """Trainer that logs and saves into a run folder.

    Args:
        config: resolved config of the run, with ``trainer``, ``callback`` and ``logger``.
        folder: run folder.
        max_steps: optimiser steps in all.
        start: steps that a checkpoint brings.

    Raises:
        ValueError: see `trainer_options`; a logger that is not installed; or this is one process of several, and no
            number of them was given.
    """
    options = trainer_options(config)
    if isinstance(options.get("strategy"), DictConfig):
        options["strategy"] = instantiate(options["strategy"])
    options.setdefault("log_every_n_steps", max(1, min(20, max_steps // 50)))
    checkpoints: Checkpoints = build(config, "callback") if config.get("callback") else Checkpoints()
    trainer = _lightning_trainer(
        max_steps=max_steps,
        max_epochs=-1,
        default_root_dir=folder,
        logger=_loggers(config, folder, start) if first_process() else False,
        callbacks=[Progress(checkpoints.monitor), StageCheckpoint(folder / "checkpoints"), checkpoints, RankStates()],
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        # batches are drawn per process already
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if checkpoints.monitor else 0,
        val_check_interval=checkpoints.validate_every * options.get("accumulate_grad_batches", 1),
        **options,
    )
    if trainer.num_devices * trainer.num_nodes == 1 and not first_process():
        raise ValueError(
            "this is one process of several: give their number by trainer.devices=N and trainer.num_nodes=N"
        )
    return trainer


def _lightning_trainer(**options: Any) -> Trainer:
    try:
        return Trainer(**options)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ValueError(f"trainer: {str(error).strip().splitlines()[0]}") from error


def trainer_options(config: DictConfig) -> dict[str, Any]:
    """Options that the user sets.

    Raises:
        ValueError: an unknown option, one that sbflow sets itself, or without ``trust`` a class from outside sbflow.
    """
    if not config.get("trust"):
        check_trusted(config.trainer, "trainer")
    check_options(config.trainer, "trainer")
    options: dict[str, Any] = {str(name): value for name, value in config.trainer.items() if name != "_target_"}
    reserved = RESERVED & set(options)
    if reserved:
        raise ValueError(f"trainer.{min(reserved)} is set by sbflow; the steps are options of the algorithm")
    return options


def _loggers(config: DictConfig, folder: Path, start: int) -> list[Logger]:
    """The table of metrics, which is always there, and the chosen logger, writing into the run folder."""
    table = MetricsFile(folder / "metrics.csv", start=start)
    if config.get("logger") is None:
        return [table]
    check_options(config.logger, "logger")
    # MLflow asks for a word before it writes plain files
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        return [table, instantiate(config.logger, save_dir=str(folder), _convert_="all")]
    except InstantiationException as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise ValueError("logger needs a package that is missing: pip install 'sbflow[loggers]'") from error
        raise


def quiet() -> None:
    """Silence what is no news: greetings, and warnings about choices made on purpose or said by the first process."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    if not first_process():
        warnings.simplefilter("ignore")
    for message in (
        ".*does not have many workers.*",  # data held in memory need none
        ".*exists and is not empty.*",  # the run folder holds the config already
        ".*treespec, LeafSpec.*",  # Lightning's own use of a deprecated call
        ".*dataloader is not resumable.*",  # batches are a function of the step
    ):
        warnings.filterwarnings("ignore", message=message)
