"""``sbflow translate``: carry images to the other side."""

import errno
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from sbflow.algorithm import Direction
from sbflow.atomic import remove_partial_files
from sbflow.command.build import check_type
from sbflow.command.countdown import Countdown
from sbflow.command.device import find_device
from sbflow.command.processes import Ranks, launched
from sbflow.command.result_files import Task, plan_task
from sbflow.command.run import load_run
from sbflow.command.search import Record, Searcher, check_search, make_searcher, save_record, write_record
from sbflow.command.speculation import CountedSpeculation, describe
from sbflow.data.images import image_size, read_image, write_image
from sbflow.integrator import SpeculationInfo
from sbflow.tensor import seeded_generator

__all__ = ["translate"]


class Share(NamedTuple):
    """What one process did.

    Attributes:
        written: images that were translated.
        skipped: inputs that were not.
        costs: of speculative batches.
        records: what a search found, by image.
    """

    written: int
    skipped: int
    costs: list[SpeculationInfo]
    records: dict[str, list[Record]]


class Skipped(list[Path]):
    """Inputs that were not translated."""

    def add(self, name: Path, reason: str) -> None:
        """Name one on the error stream."""
        self.append(name)
        # a file name need not be UTF-8
        print(f"sbflow: skipped {name}: {reason}".encode(errors="replace").decode(), file=sys.stderr)


OPTIONS = {
    "checkpoint": str,
    "input": str,
    "output": str,
    "direction": Direction,
    "num_steps": int,
    "num_samples": int,
    "held_out": str | None,
    "sampler": Literal["sde", "ode", "speculative"],
    "method": Literal["adams", "euler"] | None,
    "last_noise": bool | None,
    "batch_size": int,
    "precision": Literal[32, "bf16"],
    "device": str,
    "devices": int,
    "num_nodes": int,
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
    find_device(config.device)
    task = plan_task(Path(config.input), Path(config.output), 1 if config.grid else config.num_samples)
    run = load_run(config.checkpoint, needs="translate", trust=config.trust)
    algorithm = run.algorithm
    if len(algorithm.event_shape) != 3 or algorithm.event_shape[0] not in (1, 3):
        raise ValueError(
            f"checkpoint={config.checkpoint} translates samples of shape {list(algorithm.event_shape)}, not images"
        )
    with launched(config.device, config.devices, config.num_nodes) as ranks:
        algorithm.to(ranks.device)
        searcher = make_searcher(config, run)
        model = CountedSpeculation(algorithm) if config.sampler == "speculative" else algorithm
        share = _share(model, task, config, ranks, searcher)
        shares = ranks.gather(share)
    if ranks.rank > 0:
        return share.written
    written, skipped = (sum(getattr(one, name) for one in shares) for name in ("written", "skipped"))
    kept = len(task.results) + len(task.left_out) - written - skipped
    there = f", {kept} were there already" if kept else ""
    print(f"translated {written} images{there}, skipped {skipped} -> {task.destination}")
    if costs := [info for one in shares for info in one.costs]:
        print(describe(costs))
    if written and searcher:
        print(write_record(task.destination, config, {k: v for one in shares for k, v in one.records.items()}))
    if skipped:
        sys.exit(1)
    return written


def _share(algorithm: Any, task: Task, config: DictConfig, ranks: Ranks, searcher: Searcher | None) -> Share:
    """Translate this process's batches; the first process tidies up and names what concerns none of them."""
    skipped = Skipped()
    if ranks.rank == 0:
        if task.destination.is_dir():
            remove_partial_files(task.destination)
        for name in task.left_out:
            skipped.add(name, "a link that leads out of the folder")
    # another machine's half written files look as if nobody was writing them
    ranks.wait()
    written = _translate_all(algorithm, task, config, skipped, ranks, searcher)
    return Share(written, len(skipped), getattr(algorithm, "costs", []), searcher.records if searcher else {})


def _check(config: DictConfig) -> None:
    for name, annotation in OPTIONS.items():
        check_type(name, config[name], annotation)
    for name, least in (
        ("seed", 0),
        ("batch_size", 1),
        ("num_steps", 1),
        ("num_samples", 1),
        ("devices", 1),
        ("num_nodes", 1),
    ):
        if config[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {config[name]}")
    if config.sampler != "sde" and config.method is not None:
        raise ValueError(f"method is an option of sampler=sde, not of sampler={config.sampler}")
    if config.sampler == "ode" and (config.num_samples > 1 or config.last_noise is not None):
        raise ValueError("sampler=ode draws no noise: leave out num_samples and last_noise")
    check_search(config)


def _translate_all(
    algorithm: Any, task: Task, config: DictConfig, skipped: Skipped, ranks: Ranks, searcher: Searcher | None
) -> int:
    """Translate in batches that are fixed by the order of the inputs, and return how many images were translated.

    Processes take the batches in turn, whole, so that their number changes no byte either.
    A batch with a missing result is computed whole and only what is missing is written: whatever was there before, an
    image is computed beside the same neighbours, so that its bytes do not depend on where an earlier run was stopped.
    """
    names, written = list(task.results), 0
    size = max(1, config.batch_size // config.num_samples)
    batches = [names[i : i + size] for i in range(0, len(names), size)][ranks.rank :: ranks.size]
    with Countdown("translating", sum(map(len, batches)), silent=ranks.rank > 0) as countdown:
        for batch in batches:
            missing = {name for name in batch if config.overwrite or not _exists(task, name)}
            read = dict(_read(task.source, batch, algorithm.event_shape, skipped)) if missing else {}
            if missing & read.keys():
                made = list(_translations(algorithm, read, config, searcher))
                if searcher and ranks.rank == 0:
                    # before the images: where they are, it is; the other processes hand theirs over at the end alone
                    save_record(task.destination, config, searcher.records)
                for name, images in made:
                    if name in missing:
                        written += _write(task, name, images, config, skipped)
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


def _translations(
    algorithm: Any, read: dict[Path, Tensor], config: DictConfig, searcher: Searcher | None
) -> Iterator[tuple[Path, list[Tensor]]]:
    """Images to be written for every input: its samples, or one row of the input and its samples."""
    count = config.num_samples
    x = torch.stack(list(read.values())).to(algorithm.device)
    rows, seeds = x.repeat_interleave(count, 0), [_seeds(name, config.seed, k) for name in read for k in range(count)]
    device = x.device.type
    with torch.autocast(device, torch.bfloat16) if config.precision == "bf16" else nullcontext():
        if searcher:
            out = searcher(rows, [name.as_posix() for name in read for _ in range(count)], seeds)
        else:
            out = algorithm.translate(
                rows,
                config.direction,
                num_steps=config.num_steps,
                sampler=config.sampler,
                method=config.method,
                last_noise=config.last_noise,
                generator=[seeded_generator(*keys) for keys in seeds],
                batch_size=config.batch_size,
            )
    for name, image, samples in zip(read, x, out.float().split(count), strict=True):
        yield name, [torch.cat([image, *samples], dim=-1)] if config.grid else list(samples)


def _exists(task: Task, name: Path) -> bool:
    try:
        return task.exists(name)
    except OSError:  # the name of a result is too long
        return False


def _write(task: Task, name: Path, images: list[Tensor], config: DictConfig, skipped: Skipped) -> bool:
    """Write the results of one input, in its size or in the model's; false if they cannot have their names."""
    size = None
    if config.keep_size:
        height, width = image_size(task.source / name)
        size = (height, width * (1 + config.num_samples if config.grid else 1))
    try:
        for image, result in zip(images, task.results[name], strict=True):
            write_image(image, task.destination / result, size=size)
    except OSError as error:
        # any other, such as a full disk, would meet the next image too
        if error.errno != errno.ENAMETOOLONG:
            raise
        skipped.add(name, f"{error.strerror}: {result.name}")
        return False
    return True


def _seeds(name: Path, seed: int, sample: int) -> tuple[int, int, int]:
    """One stream per image, named by the image, so that neither batch size nor neighbours change a result."""
    return seed, zlib.crc32(os.fsencode(name.as_posix())), sample
