"""``sbflow translate``: carry images to the other side."""

import sys
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from torch import Tensor

from sbflow.algorithm import Direction
from sbflow.callback import remove_partial_files
from sbflow.command.build import check_type
from sbflow.command.countdown import Countdown
from sbflow.command.device import find_device
from sbflow.command.result_files import Task, plan_task
from sbflow.command.run import load_run
from sbflow.data.images import image_size, read_image, write_image
from sbflow.tensor import seeded_generator

__all__ = ["translate"]


class Skipped(list[Path]):
    """Inputs that were not translated."""

    def add(self, name: Path, reason: str) -> None:
        """Name one on the error stream."""
        self.append(name)
        print(f"sbflow: skipped {name}: {reason}", file=sys.stderr)


OPTIONS = {
    "checkpoint": str,
    "input": str,
    "output": str,
    "direction": Direction,
    "num_steps": int,
    "num_samples": int,
    "sampler": Literal["sde", "ode"],
    "last_noise": bool | None,
    "batch_size": int,
    "precision": Literal[32, "bf16"],
    "device": str,
    "seed": int,
    "grid": bool,
    "keep_size": bool,
    "overwrite": bool,
    "trust": bool,
}


def translate(config: DictConfig) -> int:
    """Write the translations of every input image under its relative name, and return how many inputs were read.

    Results that exist are skipped, so that a stopped translation goes on where it was. An image that cannot be read is
    named and skipped; the exit code is then 1.
    """
    _check(config)
    task = plan_task(Path(config.input), Path(config.output), 1 if config.grid else config.num_samples)
    device = find_device(config.device)
    algorithm = load_run(config.checkpoint, needs="translate", trust=config.trust).algorithm.to(device)
    if len(algorithm.event_shape) != 3 or algorithm.event_shape[0] not in (1, 3):
        raise ValueError(
            f"checkpoint={config.checkpoint} translates samples of shape {list(algorithm.event_shape)}, not images"
        )
    if task.destination.is_dir():
        remove_partial_files(task.destination)
    skipped = Skipped()
    for name in task.left_out:
        skipped.add(name, "a link that leads out of the folder")
    written = _translate_all(algorithm, task, config, skipped)
    kept = len(task.results) + len(task.left_out) - written - len(skipped)
    there = f", {kept} were there already" if kept else ""
    print(f"translated {written} images{there}, skipped {len(skipped)} -> {task.destination}")
    if skipped:
        sys.exit(1)
    return written


def _check(config: DictConfig) -> None:
    for name, annotation in OPTIONS.items():
        check_type(name, config[name], annotation)
    for name, least in (("seed", 0), ("batch_size", 1), ("num_steps", 1), ("num_samples", 1)):
        if config[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {config[name]}")
    if config.sampler == "ode" and (config.num_samples > 1 or config.last_noise is not None):
        raise ValueError("sampler=ode draws no noise: leave out num_samples and last_noise")


def _translate_all(algorithm: Any, task: Task, config: DictConfig, skipped: Skipped) -> int:
    """Translate in batches that are fixed by the order of the inputs, and return how many images were translated.

    A batch with a missing result is computed whole and only what is missing is written: whatever was there before, an
    image is computed beside the same neighbours, so that its bytes do not depend on where an earlier run was stopped.
    """
    names, written = list(task.results), 0
    size = max(1, config.batch_size // config.num_samples)
    with Countdown("translating", len(names)) as countdown:
        for batch in (names[i : i + size] for i in range(0, len(names), size)):
            missing = {name for name in batch if config.overwrite or not task.exists(name)}
            read = dict(_read(task.source, batch, algorithm.event_shape, skipped)) if missing else {}
            if missing & read.keys():
                for name, images in _translations(algorithm, read, config):
                    if name in missing:
                        _write(task, name, images, config)
                        written += 1
            countdown.advance(len(batch))
    return written


def _read(
    folder: Path, names: list[Path], event_shape: tuple[int, ...], skipped: Skipped
) -> Iterator[tuple[Path, Tensor]]:
    for name in names:
        try:
            yield name, read_image(folder / name, event_shape)
        except (OSError, ValueError) as error:
            skipped.add(name, str(error))


def _translations(algorithm: Any, read: dict[Path, Tensor], config: DictConfig) -> Iterator[tuple[Path, list[Tensor]]]:
    """Images to be written for every input: its samples, or one row of the input and its samples."""
    count = config.num_samples
    x = torch.stack(list(read.values())).to(algorithm.device)
    device = x.device.type
    with torch.autocast(device, torch.bfloat16) if config.precision == "bf16" else nullcontext():
        out = algorithm.translate(
            x.repeat_interleave(count, 0),
            config.direction,
            num_steps=config.num_steps,
            sampler=config.sampler,
            last_noise=config.last_noise,
            generator=[_generator(name, config.seed, k) for name in read for k in range(count)],
            batch_size=config.batch_size,
        )
    for name, image, samples in zip(read, x, out.float().split(count), strict=True):
        yield name, [torch.cat([image, *samples], dim=-1)] if config.grid else list(samples)


def _write(task: Task, name: Path, images: list[Tensor], config: DictConfig) -> None:
    """Write the results of one input, in its size or in the model's."""
    size = None
    if config.keep_size:
        height, width = image_size(task.source / name)
        size = (height, width * (1 + config.num_samples if config.grid else 1))
    for image, result in zip(images, task.results[name], strict=True):
        write_image(image, task.destination / result, size=size)


def _generator(name: Path, seed: int, sample: int) -> torch.Generator:
    """One stream per image, named by the image, so that neither batch size nor neighbours change a result."""
    return seeded_generator(seed, zlib.crc32(name.as_posix().encode()), sample)
