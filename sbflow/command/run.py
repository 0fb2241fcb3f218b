"""Run folders: what training leaves behind and the other commands read."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from sbflow.command.build import build, check_trusted

__all__ = ["Run", "load_run", "print_metrics", "write_json"]


class Run(NamedTuple):
    """A trained run.

    Attributes:
        folder: the run folder.
        config: its resolved config.
        algorithm: the LightningModule with the weights of the checkpoint, in evaluation mode.
    """

    folder: Path
    config: DictConfig
    algorithm: Any


def load_run(checkpoint: str, *, needs: str, trust: bool = False) -> Run:
    """Rebuild an algorithm from its saved config and load its weights, and nothing but weights.

    Args:
        checkpoint: run folder, or a ``.ckpt`` file in its ``checkpoints`` folder.
        needs: method that the algorithm must have (``"translate"``, ``"estimate"``).
        trust: build classes from outside sbflow that the saved config names.

    Raises:
        FileNotFoundError: no such run.
        ValueError: not a run, unreadable, or the checkpoint of the other algorithm.
    """
    file = _checkpoint_file(Path(checkpoint))
    folder = file.parent.parent
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        raise FileNotFoundError(f"checkpoint={checkpoint}: no config.yaml in {folder}; is it a run folder?")
    config = OmegaConf.load(config_file)
    if not isinstance(config, DictConfig):
        raise ValueError(f"checkpoint={checkpoint}: {config_file} is not a config of sbflow train")
    if not trust:
        for key in ("algorithm", "data", "metric", "figure"):
            check_trusted(config.get(key), key)
    algorithm = build(config, "algorithm")
    if not hasattr(algorithm, needs):
        raise ValueError(f"checkpoint={checkpoint} holds a {type(algorithm).__name__}, which cannot {needs}")
    load_weights(algorithm, file)
    return Run(folder, config, algorithm)


def load_weights(algorithm: torch.nn.Module, file: Path) -> None:
    """Load the weights of a checkpoint file into an algorithm and set it to evaluation mode.

    Raises:
        ValueError: the file is truncated, holds more than plain data, or belongs to another configuration.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
        algorithm.load_state_dict(state)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"cannot load checkpoint {file}: {reason}") from error
    algorithm.eval()


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON."""
    file.write_text(json.dumps(values, indent=2) + "\n")


def print_metrics(title: str, metrics: dict[str, float]) -> None:
    """Print numbers as a small table."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)


def _checkpoint_file(path: Path) -> Path:
    file = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint={path}: no file {file}; give the folder that sbflow train printed")
    return file
