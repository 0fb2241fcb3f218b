"""The processes of one command: Lightning starts them; here they share threads, exchange results and end together."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Fabric, Trainer
from lightning.fabric.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sbflow.command.device import find_device
from sbflow.command.rank import first_process
from sbflow.command.trainer import quiet

__all__ = ["Ranks", "launched", "processes"]

STARTED_WITH = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS")
"""Environment that is set for the processes that Lightning starts; the next job of a sweep starts its own."""

PATIENCE = 15.0
"""Seconds that a process is given to end by itself."""

LONG = timedelta(days=30)
"""How long a process that has done its share waits for the others."""


@runtime_checkable
class Child(Protocol):
    """A process that Lightning has started."""

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""

    def wait(self) -> int:
        """Wait for its end."""

    def kill(self) -> None:
        """End it by force."""


class Ranks(NamedTuple):
    """This process among those of the command.

    Attributes:
        rank: its number; 0 is the first one, which prints and writes what concerns all.
        size: how many there are.
        device: where it computes.
    """

    rank: int
    size: int
    device: torch.device

    def gather(self, value: Any) -> list[Any]:
        """Values of all processes in their order, at the first one; elsewhere nothing."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(value, values)
        return values or []

    def wait(self) -> None:
        """Wait for all others."""
        if self.size > 1:
            torch.distributed.barrier()


@contextmanager
def launched(device: str, devices: int, num_nodes: int) -> Iterator[Ranks]:
    """Run what follows in ``devices`` processes on each of ``num_nodes`` machines, each with a device of its own.

    Args:
        device: name of the device; a number of it (``"cuda:1"``) is for one process.
        devices: processes on a machine.
        num_nodes: machines, each of which was given the same command.

    Raises:
        ValueError: there are not so many devices, or this is one process of several and no number of them was given.
    """
    found = find_device(device)
    if devices * num_nodes == 1:
        if not first_process():
            raise ValueError("this is one process of several: give their number by devices=N and num_nodes=N")
        yield Ranks(0, 1, found)
        return
    quiet()
    if ":" in device:
        raise ValueError(f"device={device} is one device: give its kind alone to use devices={devices} of it")
    try:
        strategy = DDPStrategy(timeout=LONG)
        fabric = Fabric(accelerator=found.type, devices=devices, num_nodes=num_nodes, strategy=strategy)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ValueError(f"devices={devices}: {str(error).strip().splitlines()[0]}") from error
    with processes(fabric, devices * num_nodes, per_machine=devices):
        fabric.launch()
        yield Ranks(fabric.global_rank, fabric.world_size, fabric.device)


@contextmanager
def processes(engine: Trainer | Fabric, size: int, *, per_machine: int, workers: int = 0) -> Iterator[None]:
    """Let Lightning start the other processes inside, and leave none of them and nothing of theirs behind.

    Where one fails, all end: the first one with the exit code of the one that failed, which has said why.

    Args:
        engine: starts them in its launch.
        size: how many processes there are in all.
        per_machine: how many on this machine, which share its cores.
        workers: processes that load data, for each of them.
    """
    environment = {name: os.environ.get(name) for name in STARTED_WITH}
    arguments, threads = sys.argv, torch.get_num_threads()
    _share_cores(per_machine, workers)
    handler = signal.getsignal(signal.SIGTERM)
    if size > 1:
        # a process that is ended must end those that it has started
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        # Lightning repeats the command line for each: that of this job, were it one of a sweep
        sys.argv = [arguments[0], *_command_line()]
    try:
        yield
        _end(_children(engine), PATIENCE)
    except BaseException as error:
        code = _end(_children(engine), PATIENCE if _cut_off(error) else 0.0)
        if size > 1 and _cut_off(error):
            raise SystemExit(code or 1) from error
        raise
    finally:
        sys.argv = arguments
        if size > 1:
            signal.signal(signal.SIGTERM, handler)
            _part()
        _restore(environment)
        torch.set_num_threads(threads)


def _share_cores(processes: int, workers: int) -> None:
    """Threads of each process, so that all of them and their data workers together have one for each core.

    OMP_NUM_THREADS, where it is set, is what the user wants; one process without workers has them all.
    """
    if "OMP_NUM_THREADS" in os.environ or (processes == 1 and workers == 0):
        return
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # SLURM says what a task has, however it binds them
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or here // processes)
    threads = max(1, cores - workers)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _command_line() -> list[str]:
    """Words after the name of the program that start this very job, outside of a sweep."""
    config = HydraConfig.get()
    folders = [source.path for source in config.runtime.config_sources if source.provider == "command-line"]
    paths = [word for word in config.overrides.hydra if word.lstrip("+~").startswith("hydra.searchpath")]
    options = [word for folder in folders for word in ("--config-dir", folder)]
    return [config.job.config_name, *options, *paths, *config.overrides.task]


def _children(engine: Trainer | Fabric) -> list[Child]:
    """Processes that this one has started; taken from Lightning's watch, which would end this one by force."""
    started = getattr(engine.strategy.launcher, "procs", [])
    children = list(started)
    started.clear()
    return children


def _end(children: list[Child], patience: float) -> int:
    """End processes, by force after some seconds, and return the exit code of one that failed, or 0."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        if any(child.poll() for child in children):
            break
        time.sleep(0.05)
    code = max((child.poll() or 0 for child in children), default=0)
    for child in children:
        child.kill()
        child.wait()
    return code


def _part() -> None:
    """Leave the group, so that the next job of a sweep can form another."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _cut_off(error: BaseException) -> bool:
    """Whether the error only says that another process has gone."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in str(error).lower() or "Connection" in str(error))
    )


def _restore(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
