"""``sbflow train``: fit an algorithm, measure it and leave a run folder."""

import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf

from sbflow.atomic import remove_partial_files
from sbflow.command.build import build, check_options, check_type
from sbflow.command.checkpoint import newest_checkpoint, read_checkpoint
from sbflow.command.evaluate import measure
from sbflow.command.processes import processes
from sbflow.command.rank import first_process
from sbflow.command.report import record_command, write_report
from sbflow.command.resume import LENGTHS, resumed_config
from sbflow.command.run import Run, load_weights, print_metrics, write_config
from sbflow.command.trainer import make_trainer, quiet, trainer_options
from sbflow.process import suggest_epsilon

__all__ = ["train"]

CHECKED = ("algorithm", "network", "target", "whitening", "data", "logger")
BUILT = ("process", "callback", "metric", "figure")
OPTIONAL = ("metric", "figure")


def train(config: DictConfig) -> dict[str, float]:
    """Train, evaluate, and return the metrics; with ``resume=RUN`` go on where that run was stopped."""
    quiet()
    if config.resume is None:
        return _new(config, Path(HydraConfig.get().runtime.output_dir))
    folder, saved = resumed_config(config)
    return _continue(saved, folder)


def _new(config: DictConfig, folder: Path) -> dict[str, float]:
    if first_process() and (folder / "config.yaml").exists():
        raise ValueError(f"run_dir={folder} already holds a run: go on with it by resume={folder}, or choose another")
    data, algorithm = _build(config)
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    if hasattr(algorithm, "method"):
        # the choice of today: a run without one is older, and keeps the method of its time
        resolved.algorithm.method = algorithm.method
    trainer = make_trainer(resolved, folder, algorithm.max_steps, 0)
    if first_process():
        _claim(folder, resolved)
        record_command(folder)
    return _fit(Run(folder, resolved, algorithm), data, trainer)


def _continue(config: DictConfig, folder: Path) -> dict[str, float]:
    checkpoint = newest_checkpoint(folder / "checkpoints")
    start = 0 if checkpoint is None else _steps_done(checkpoint)
    data, algorithm = _build(config)
    if start > algorithm.max_steps:
        option = next((key for key in LENGTHS if OmegaConf.select(config, key) is not None), "algorithm")
        raise ValueError(
            f"{option} makes a run of {algorithm.max_steps} steps, but resume={folder} has reached step {start}: "
            "fewer steps than were made cannot be taken back; choose at least as many"
        )
    trainer = make_trainer(config, folder, algorithm.max_steps, start)
    if first_process():
        remove_partial_files(folder)
        write_config(folder, config)
        print(f"continuing {folder} at step {start} of {algorithm.max_steps}", flush=True)
    return _fit(Run(folder, config, algorithm), data, trainer, checkpoint)


def _steps_done(checkpoint: Path) -> int:
    """Optimiser steps that a checkpoint has behind it.

    Raises:
        ValueError: it holds weights alone.
    """
    saved = read_checkpoint(checkpoint)
    if not {"global_step", "loops", "optimizer_states"} <= set(saved):
        raise ValueError(f"{checkpoint} holds weights alone: training cannot go on from it")
    return int(saved["global_step"])


def _build(config: DictConfig) -> tuple[Any, Any]:
    """Data and algorithm, with what the data decide written into the config."""
    check_type("seed", config.seed, int)
    if config.seed < 0:
        raise ValueError(f"seed must be at least 0, got {config.seed}")
    seed_everything(config.seed, workers=True, verbose=False)
    _check_options(config)
    data = build(config, "data")
    data.prepare_data()
    config.event_shape = list(data.event_shape)
    _choose_epsilon(config, data)
    algorithm = build(config, "algorithm")
    for part in OPTIONAL:
        if config.get(part) is not None:
            getattr(build(config, part), "check", lambda *_: None)(algorithm, data)
    return data, algorithm


def _check_options(config: DictConfig) -> None:
    """Say before data are loaded what can be said without them."""
    known = config.copy()
    # the data will tell
    known.event_shape = [1]
    if known.process.get("epsilon") == "auto":
        known.process.epsilon = 1.0
    for part in CHECKED:
        check_options(known.get(part), part)
    for part in BUILT:
        if part not in OPTIONAL or known.get(part) is not None:
            build(known, part)
    trainer_options(known)


def _choose_epsilon(config: DictConfig, data: Any) -> None:
    if config.process.get("epsilon") != "auto":
        return
    split = data.split("train")
    # benchmark data have the epsilon that their known plan belongs to
    config.process.epsilon = getattr(data, "epsilon", None) or suggest_epsilon(split.x0, split.x1)
    if first_process():
        print(f"process.epsilon=auto: {config.process.epsilon:.4g}", flush=True)


def _claim(folder: Path, config: DictConfig) -> None:
    """Write the config; of two runs that chose the same folder in the same moment, one gets it."""
    folder.mkdir(parents=True, exist_ok=True)
    # of the form that `remove_partial_files` clears away
    written = folder / f".config.yaml.{os.getpid()}.partial"
    OmegaConf.save(config, written)
    try:
        # whole or not at all, and only if there is none
        os.link(written, folder / "config.yaml")
    except FileExistsError as error:
        raise ValueError(f"run_dir={folder} was just taken by another run; choose another folder") from error
    except OSError:
        # not every file system has hard links
        written.replace(folder / "config.yaml")
    finally:
        written.unlink(missing_ok=True)


def _fit(run: Run, data: Any, trainer: Trainer, checkpoint: Path | None = None) -> dict[str, float]:
    """Train with all processes; the first one then measures, and has the machine to itself."""
    workers = getattr(data, "num_workers", 0)
    with processes(trainer, trainer.world_size, per_machine=trainer.num_devices, workers=workers):
        _train(run, data, trainer, checkpoint)
    if not trainer.is_global_zero:
        return {}
    algorithm = run.algorithm.eval() if trainer.world_size == 1 else _whole(run)
    metrics = measure(Run(run.folder, run.config, algorithm), data)
    for logger in trainer.loggers:
        logger.log_metrics(metrics, trainer.global_step)
        logger.finalize("success")
    write_report(run.folder)
    print_metrics(f"run folder: {run.folder}", metrics)
    return metrics


def _whole(run: Run) -> Any:
    """The model from its checkpoint: of weights in shards this process has but a part."""
    algorithm = build(run.config, "algorithm")
    load_weights(algorithm, run.folder / "checkpoints" / "last.ckpt")
    return algorithm


def _train(run: Run, data: Any, trainer: Trainer, checkpoint: Path | None) -> None:
    try:
        trainer.fit(run.algorithm, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        # Lightning has turned Ctrl-C and SIGTERM into this
        if trainer.is_global_zero:
            print(f"sbflow: stopped; go on with: sbflow train resume={run.folder}", file=sys.stderr)
        raise SystemExit(143 if trainer.received_sigterm else stop.code or 130) from stop
    except FloatingPointError as error:
        seed = getattr(data, "seed", run.config.seed)
        raise FloatingPointError(f"{error} (seed of the batches {seed}; run folder {run.folder})") from error
    trainer.save_checkpoint(run.folder / "checkpoints" / "last.ckpt")
