"""``sbflow translate``: carry a folder of images to the other side."""

import sys
import zlib
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
    if source.resolve() == destination.resolve():
        raise ValueError(f"output must differ from input, got {destination} for both")
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
            write_image(image, (destination / name).with_suffix(".png"))
    print(f"translated {len(names) - len(unreadable)} of {len(names)} images -> {destination}")
    if unreadable:
        sys.exit(1)
    return len(names)


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
