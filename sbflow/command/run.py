"""Run folders: what training leaves behind and the other commands read."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from yaml import YAMLError

from sbflow.atomic import replacing
from sbflow.command.build import build, check_trusted
from sbflow.command.checkpoint import check_format, newest_checkpoint, read_checkpoint

__all__ = [
    "EXTRA",
    "WEIGHTS",
    "Run",
    "load_run",
    "load_weights",
    "print_metrics",
    "read_config",
    "write_config",
    "write_json",
]

WEIGHTS = "model.safetensors"
"""Name of the weights in an export."""

EXTRA = "extra_state.pt"
"""Name of what is not a tensor, where a model has such; plain data as well."""


class Run(NamedTuple):
    """A trained run.

    Attributes:
        folder: the run folder.
        config: its resolved config.
        algorithm: the LightningModule with the weights of the checkpoint, in evaluation mode.
        name: of a checkpoint that is not the run's last one (``"stage-pretrain"``), else empty.
    """

    folder: Path
    config: DictConfig
    algorithm: Any
    name: str = ""


def load_run(checkpoint: str | Path, *, needs: str | None = None, trust: bool = False) -> Run:
    """Rebuild an algorithm from its saved config and load its weights, and nothing but weights.

    Args:
        checkpoint: run folder, a ``.ckpt`` file in its ``checkpoints`` folder, or the folder of an export.
        needs: method that the algorithm must have (``"translate"``, ``"estimate"``).
        trust: build classes from outside sbflow that the saved config names.

    Raises:
        FileNotFoundError: no such run.
        ValueError: not a run, unreadable, or the checkpoint of the other algorithm.
    """
    path = Path(checkpoint)
    folder = _folder(path)
    config = read_config(folder, option="checkpoint")
    file = _weights_file(path)
    if not trust:
        for key in ("algorithm", "data", "metric", "figure"):
            check_trusted(config.get(key), key)
    algorithm = build(config, "algorithm")
    if not isinstance(algorithm, LightningModule):
        raise ValueError(f"checkpoint={checkpoint}: its config makes a {type(algorithm).__name__}, not an algorithm")
    if needs is not None and not hasattr(algorithm, needs):
        raise ValueError(f"checkpoint={checkpoint} holds a {type(algorithm).__name__}, which cannot {needs}")
    load_weights(algorithm, file)
    return Run(folder, config, algorithm, "" if file.stem in ("last", "previous", "model") else file.stem)


def read_config(folder: Path, *, option: str) -> DictConfig:
    """The config of a run folder; ``option`` is what the user named the folder by.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a config.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{option}={folder}: no config.yaml in {folder}; is it a run folder?")
    try:
        config = OmegaConf.load(file)
        # what refers to nothing is found here, and not where it is used
        OmegaConf.resolve(config)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{option}={folder}: {file} is not a readable config ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(config, DictConfig) or config.get("algorithm") is None:
        raise ValueError(f"{option}={folder}: {file} is not a config of sbflow train")
    algorithm = config.algorithm
    if isinstance(algorithm, DictConfig) and str(algorithm.get("_target_")).endswith(".SchrodingerBridgeFlow"):
        # trained before there was a choice
        algorithm.setdefault("method", "euler")
    return config


def load_weights(algorithm: torch.nn.Module, file: Path) -> None:
    """Load the weights of a checkpoint or export into an algorithm and set it to evaluation mode.

    Raises:
        ValueError: the file is truncated, holds more than plain data, or belongs to another configuration.
    """
    state, found = _read_weights(file)
    try:
        missing, unexpected = algorithm.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        raise ValueError(f"cannot load checkpoint {file}: {reason[min(1, len(reason) - 1)].strip()}") from error
    learned = {name for name, _ in algorithm.named_parameters()}
    # a release may add buffers, never in silence weights
    absent = [name for name in missing if found > 0 or name in learned]
    if absent or unexpected:
        name = (absent or unexpected)[0]
        raise ValueError(f"cannot load checkpoint {file}: {name} does not fit the config beside it")
    algorithm.eval()


def write_config(folder: Path, config: DictConfig) -> None:
    """Write ``config.yaml`` into a folder, which is made if there is none; the file appears whole or not at all."""
    with replacing(folder / "config.yaml") as handle:
        handle.write(OmegaConf.to_yaml(config).encode())


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON; the file appears whole or not at all."""
    with replacing(file) as handle:
        handle.write((json.dumps(values, indent=2) + "\n").encode())


def print_metrics(title: str, metrics: dict[str, float]) -> None:
    """Print numbers as a small table."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)


def _read_weights(file: Path) -> tuple[dict[str, Any], int]:
    """Weights and format of a file."""
    if file.name != WEIGHTS:
        checkpoint = read_checkpoint(file)
        return checkpoint["state_dict"], checkpoint.get("sbflow_format", 0)
    try:
        state: dict[str, Any] = load_file(file)
        if (file.parent / EXTRA).is_file():
            state |= torch.load(file.parent / EXTRA, map_location="cpu", weights_only=True)
        found = int(json.loads((file.parent / "export.json").read_text())["sbflow_format"])
    except Exception as error:
        raise ValueError(f"cannot load export {file}: {str(error).splitlines()[0]}") from error
    check_format(found, file)
    return state, found


def _folder(path: Path) -> Path:
    """Where the config is."""
    if path.is_dir():
        return path
    if not path.exists():
        raise FileNotFoundError(f"checkpoint={path}: no such file; give the folder that sbflow train printed")
    if path.name == WEIGHTS:
        return path.parent
    if path.suffix != ".ckpt":
        raise ValueError(f"checkpoint={path} is neither a run folder nor a .ckpt file")
    return path.resolve().parent.parent


def _weights_file(path: Path) -> Path:
    """Where the weights are; of a run folder the newest ones that can be read."""
    if not path.is_dir():
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    file = newest_checkpoint(path / "checkpoints")
    if file is None:
        missing = path / "checkpoints" / "last.ckpt"
        raise FileNotFoundError(f"checkpoint={path}: no file {missing}; give the folder that sbflow train printed")
    return file
