"""``sbflow translate``: carry a folder of images to the other side."""

import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.progress import track
from torch import Tensor

from sbflow.algorithm import Direction
from sbflow.command.build import check_type
from sbflow.command.run import load_run
from sbflow.data.images import image_files, read_image, write_image
from sbflow.tensor import seeded_generator

__all__ = ["translate"]

OPTIONS = {
    "checkpoint": str,
    "input": str,
    "output": str,
    "direction": Direction,
    "num_steps": int,
    "batch_size": int,
    "seed": int,
    "trust": bool,
}


def translate(config: DictConfig) -> int:
    """Write one image per input image under the same relative name, and return how many.

    An image that cannot be read is named and skipped; the exit code is then 1.
    """
    for name, annotation in OPTIONS.items():
        check_type(name, config[name], annotation)
    source, destination = Path(config.input), Path(config.output)
    names = image_files(source)
    if config.seed < 0:
        raise ValueError(f"seed must be at least 0, got {config.seed}")
    if config.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {config.batch_size}")
    if destination.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"output must lie outside input, or a second run would translate it; got {destination}")
    outputs = _outputs(names)
    algorithm = load_run(config.checkpoint, needs="translate", trust=config.trust).algorithm
    unreadable = []
    batches = [names[i : i + config.batch_size] for i in range(0, len(names), config.batch_size)]
    for batch in track(batches, description="translating", disable=not sys.stdout.isatty()):
        read = dict(_read(source, batch, algorithm.event_shape, unreadable))
        if not read:
            continue
        out = algorithm.translate(
            torch.stack(list(read.values())),
            config.direction,
            num_steps=config.num_steps,
            generator=[_generator(name, config.seed) for name in read],
        )
        for name, image in zip(read, out, strict=True):
            write_image(image, destination / outputs[name])
    print(f"translated {len(names) - len(unreadable)} of {len(names)} images -> {destination}")
    if unreadable:
        sys.exit(1)
    return len(names)


def _outputs(names: list[Path]) -> dict[Path, Path]:
    """Name of each result: the input's with the suffix .png, after the old suffix where two would collide."""
    plain = Counter(name.with_suffix(".png") for name in names)
    return {
        name: name.with_suffix(".png") if plain[name.with_suffix(".png")] == 1 else name.with_name(f"{name.name}.png")
        for name in names
    }


def _read(
    folder: Path, names: list[Path], event_shape: tuple[int, ...], unreadable: list[Path]
) -> Iterator[tuple[Path, Tensor]]:
    for name in names:
        try:
            yield name, read_image(folder / name, event_shape)
        except (OSError, ValueError) as error:
            unreadable.append(name)
            print(f"sbflow: skipped {name}: {error}", file=sys.stderr)


def _generator(name: Path, seed: int) -> torch.Generator:
    """One stream per image, named by the image, so that neither batch size nor neighbours change a result."""
    return seeded_generator(seed, zlib.crc32(name.as_posix().encode()))
