"""``sbflow train``: fit an algorithm, measure it and leave a run folder."""

import logging
import warnings
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from sbflow.callback import Progress, StageCheckpoint
from sbflow.command.build import build, check_options, check_type
from sbflow.command.evaluate import measure
from sbflow.command.run import Run, print_metrics

__all__ = ["train"]

RESERVED = {
    "max_steps",
    "max_epochs",
    "default_root_dir",
    "logger",
    "callbacks",
    "enable_progress_bar",
    "enable_model_summary",
    "use_distributed_sampler",
}


def train(config: DictConfig) -> dict[str, float]:
    """Train, evaluate, and return the metrics."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if (folder / "checkpoints" / "last.ckpt").exists():
        raise ValueError(f"run_dir={folder} already holds a run; choose another folder")
    check_type("seed", config.seed, int)
    if config.seed < 0:
        raise ValueError(f"seed must be at least 0, got {config.seed}")
    _quiet()
    seed_everything(config.seed, workers=True, verbose=False)
    data = build(config, "data")
    data.prepare_data()
    config.event_shape = list(data.event_shape)
    algorithm = build(config, "algorithm")
    resolved = _save_config(config, folder)
    trainer = _trainer(resolved, folder, algorithm.max_steps)
    trainer.fit(algorithm, data)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    metrics = measure(Run(folder, resolved, algorithm.eval()), data)
    trainer.logger.log_metrics(metrics, trainer.global_step)
    trainer.logger.save()
    print_metrics(f"run folder: {folder}", metrics)
    return metrics


def _save_config(config: DictConfig, folder: Path) -> DictConfig:
    """Write the config with every reference resolved, so that the run folder stands alone."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(resolved, folder / "config.yaml")
    return resolved


def _trainer(config: DictConfig, folder: Path, max_steps: int) -> Trainer:
    check_options(config.trainer, "trainer")
    options: dict[str, Any] = {str(name): value for name, value in config.trainer.items() if name != "_target_"}
    reserved = RESERVED & set(options)
    if reserved:
        raise ValueError(f"trainer.{min(reserved)} is set by sbflow; the steps are options of the algorithm")
    options.setdefault("log_every_n_steps", max(1, min(20, max_steps // 50)))
    checkpoints = ModelCheckpoint(
        dirpath=folder / "checkpoints", filename="last", every_n_train_steps=500, enable_version_counter=False
    )
    return Trainer(
        max_steps=max_steps,
        max_epochs=-1,
        default_root_dir=folder,
        logger=CSVLogger(save_dir=folder, name="", version=""),
        callbacks=[Progress(), checkpoints, StageCheckpoint(folder / "checkpoints")],
        enable_progress_bar=False,
        enable_model_summary=False,
        # batches are drawn per process already
        use_distributed_sampler=False,
        **options,
    )


def _quiet() -> None:
    """Silence what is no news: greetings, and warnings about choices made on purpose."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # data held in memory need none
        ".*exists and is not empty.*",  # the run folder holds the config already
        ".*treespec, LeafSpec.*",  # Lightning's own use of a deprecated call
    ):
        warnings.filterwarnings("ignore", message=message)
